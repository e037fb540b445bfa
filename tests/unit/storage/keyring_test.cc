#include "storage/keyring.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <set>

#include "tests/support/scratch_directory.h"
#include "tests/unit/storage/fixtures.h"

namespace walvault::storage {
namespace fs = std::filesystem;
namespace {

WallTime at(std::int64_t seconds) { return WallTime(std::chrono::seconds(seconds)); }
bool same_secret(ByteSpan left, ByteSpan right) { return std::ranges::equal(left, right); }

// The line of the key 00 01 .. 1f, computed apart from this code (Python's base64 and a CRC-32C).
constexpr std::string_view kKnownLine =
    "walvault-key-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= 40616268";

std::string line_of(const MasterKey& key) {
    ScratchDirectory scratch;
    REQUIRE(key.write_file(posix_file_system(), scratch / "key").has_value());
    return std::string(as_text(raw_file(scratch / "key")));
}

Keyring ring_of_three(const Id16& repository_id, const MasterKey& master) {
    Keyring ring = Keyring::create(repository_id, master);
    ring.add(pb::KEY_PURPOSE_WAL, "", at(100));
    ring.add(pb::KEY_PURPOSE_JOURNAL, "sensitive", at(200));
    ring.add(pb::KEY_PURPOSE_WAL, "", at(300));
    return ring;
}

}  // namespace

TEST_CASE("a master key's line is the documented one") {
    auto key = MasterKey::parse(kKnownLine);
    REQUIRE(key.has_value());
    for (std::size_t i = 0; i < 32; ++i)
        CHECK(key->view()[i] == static_cast<std::byte>(i));
    CHECK(line_of(*key) == std::string(kKnownLine) + "\n");
}

TEST_CASE("a generated key survives being written and read") {
    ScratchDirectory scratch;
    MasterKey key = MasterKey::generate();
    REQUIRE(key.write_file(posix_file_system(), scratch / "key").has_value());
    auto again = MasterKey::read_file(posix_file_system(), scratch / "key");
    REQUIRE(again.has_value());
    CHECK(same_secret(again->view(), key.view()));
    CHECK(again->id() == key.id());
    CHECK(key.clone().id() == key.id());
    CHECK(MasterKey::generate().id() != key.id());
    CHECK(fs::status(scratch / "key").permissions() ==
          (fs::perms::owner_read | fs::perms::owner_write));
    CHECK(key.write_file(posix_file_system(), scratch / "key").error().code == Errc::refused);
}

TEST_CASE("any wrong character of a key line is seen") {
    std::string line(kKnownLine);
    for (std::size_t i = 0; i < line.size(); ++i) {
        for (char wrong : {'A', 'B', '0', '=', ' ', '\0'}) {
            std::string typed = line;
            if (typed[i] == wrong) continue;
            typed[i] = wrong;
            INFO("character " << i);
            CHECK(MasterKey::parse(typed).error().code == Errc::wrong_key);
        }
        CHECK(MasterKey::parse(line.substr(0, i)).error().code == Errc::wrong_key);
        std::string swapped = line;
        if (i + 1 < line.size()) std::swap(swapped[i], swapped[i + 1]);
        if (swapped != line) CHECK(MasterKey::parse(swapped).error().code == Errc::wrong_key);
    }
    CHECK(MasterKey::parse(line + "0").error().code == Errc::wrong_key);
    CHECK(MasterKey::parse(line + "\r\n").has_value());
}

TEST_CASE("a key line that is wrong is never shown in the error") {
    std::string line(kKnownLine);
    line[30] = line[30] == 'A' ? 'B' : 'A';
    Error error = MasterKey::parse(line).error();
    CHECK((error.message + error.hint).find("AAECAwQF") == std::string::npos);
    CHECK_FALSE(error.hint.empty());
}

TEST_CASE("a key file that others can use is refused, and the hint says what to do") {
    ScratchDirectory scratch;
    std::string path = scratch / "key";
    REQUIRE(MasterKey::generate().write_file(posix_file_system(), path).has_value());
    unsigned allowed_count = 0;
    for (unsigned mode = 0; mode <= 0777; ++mode) {
        fs::permissions(path, static_cast<fs::perms>(mode));
        auto key = MasterKey::read_file(posix_file_system(), path);
        // A key of root's may be 0440, as systemd hands it over; without read permission root reads
        // it.
        bool allowed = (mode & 0177) == 0 || (::geteuid() == 0 && mode == 0440);
        if (allowed && (mode & 0400) == 0 && ::geteuid() != 0) allowed = false;
        INFO("mode " << mode);
        CHECK(key.has_value() == allowed);
        if (!key) CHECK(key.error().code == Errc::wrong_key);
        if (!key && (mode & 0077) != 0) CHECK(key.error().hint == "`chmod 600 " + path + "`");
        allowed_count += allowed;
    }
    CHECK(allowed_count >= 2);
}

TEST_CASE("a missing key file, a link, a directory, an empty and a huge file are refused") {
    ScratchDirectory scratch;
    REQUIRE(MasterKey::generate().write_file(posix_file_system(), scratch / "key").has_value());
    auto missing = MasterKey::read_file(posix_file_system(), scratch / "none").error();
    CHECK(missing.code == Errc::wrong_key);
    CHECK(missing.hint.find("walvault key generate --out " + (scratch / "none")) !=
          std::string::npos);
    fs::create_symlink("key", scratch / "link");
    CHECK(MasterKey::read_file(posix_file_system(), scratch / "link").error().code ==
          Errc::wrong_key);
    CHECK(MasterKey::read_file(posix_file_system(), scratch.path()).error().code ==
          Errc::wrong_key);
    write_raw_file(scratch / "empty", {});
    fs::permissions(scratch / "empty", fs::perms::owner_read);
    CHECK(MasterKey::read_file(posix_file_system(), scratch / "empty").error().code ==
          Errc::wrong_key);
    write_raw_file(scratch / "huge", ByteBuffer(2'000, std::byte{'x'}));
    fs::permissions(scratch / "huge", fs::perms::owner_read);
    CHECK(MasterKey::read_file(posix_file_system(), scratch / "huge").error().code ==
          Errc::wrong_key);
}

// Lets a test be another user for a while.
struct EffectiveUser {
    explicit EffectiveUser(uid_t user) { REQUIRE(::seteuid(user) == 0); }
    ~EffectiveUser() { CHECK(::seteuid(0) == 0); }
};

TEST_CASE("a key file of another user is refused") {
    if (::geteuid() != 0) return;
    ScratchDirectory scratch;
    REQUIRE(MasterKey::generate().write_file(posix_file_system(), scratch / "key").has_value());
    REQUIRE(::chown((scratch / "key").c_str(), 12'345, 12'345) == 0);
    fs::permissions(scratch.path(), fs::perms::all);
    EffectiveUser other(12'346);
    auto error = MasterKey::read_file(posix_file_system(), scratch / "key").error();
    CHECK(error.code == Errc::wrong_key);
    CHECK(error.message.find("12345") != std::string::npos);
}

TEST_CASE("root uses the key file of a service's user, if nobody else can") {
    if (::geteuid() != 0) return;
    ScratchDirectory scratch;
    std::string path = scratch / "key";
    REQUIRE(MasterKey::generate().write_file(posix_file_system(), path).has_value());
    REQUIRE(::chown(path.c_str(), 12'345, 12'345) == 0);
    for (unsigned mode : {0600u, 0400u}) {
        fs::permissions(path, static_cast<fs::perms>(mode));
        CHECK(MasterKey::read_file(posix_file_system(), path).has_value());
    }
    // 0440 is how systemd hands over a key of root's; here it is a group of somebody else's.
    for (unsigned mode : {0440u, 0640u, 0604u}) {
        fs::permissions(path, static_cast<fs::perms>(mode));
        CHECK(MasterKey::read_file(posix_file_system(), path).error().code == Errc::wrong_key);
    }
}

TEST_CASE("a keyring decodes to what was encoded") {
    MasterKey master = MasterKey::generate();
    Keyring ring = ring_of_three(id16(1), master);
    CHECK(ring.generation() == 3);
    auto again = Keyring::decode(ring.encode(master), id16(1), master);
    REQUIRE(again.has_value());
    CHECK(again->generation() == 3);
    const DataKey* wal = ring.current(pb::KEY_PURPOSE_WAL);
    const DataKey* same = again->current(pb::KEY_PURPOSE_WAL);
    REQUIRE(wal != nullptr);
    REQUIRE(same != nullptr);
    CHECK(wal->made_at == at(300));
    CHECK(same->id == wal->id);
    CHECK(same->made_at == wal->made_at);
    CHECK(same_secret(same->secret.view(), wal->secret.view()));
    CHECK(again->find(wal->id) == same);
    CHECK(again->find(id16(9)) == nullptr);
    CHECK(again->current(pb::KEY_PURPOSE_JOURNAL) == nullptr);
    REQUIRE(again->current(pb::KEY_PURPOSE_JOURNAL, "sensitive") != nullptr);
    CHECK(again->current(pb::KEY_PURPOSE_JOURNAL, "sensitive")->data_class == "sensitive");
}

TEST_CASE("keys stay where they are while the keyring grows") {
    MasterKey master = MasterKey::generate();
    Keyring ring = Keyring::create(id16(1), master);
    const DataKey& first = ring.add(pb::KEY_PURPOSE_BASE, "", at(1));
    Id16 id = first.id;
    for (int i = 0; i < 100; ++i)
        ring.add(pb::KEY_PURPOSE_WAL, "", at(i));
    CHECK(ring.find(id) == &first);
    CHECK(first.purpose == pb::KEY_PURPOSE_BASE);
}

TEST_CASE("another master key is told from damage") {
    MasterKey master = MasterKey::generate(), other = MasterKey::generate();
    ByteBuffer file = ring_of_three(id16(1), master).encode(master);
    auto error = Keyring::decode(file, id16(1), other).error();
    CHECK(error.code == Errc::wrong_key);
    CHECK(error.message.find(to_hex(master.id())) != std::string::npos);
    CHECK(error.message.find(to_hex(other.id())) != std::string::npos);
    CHECK(Keyring::decode(file, id16(2), master).error().code == Errc::corrupt);
}

TEST_CASE("every flipped bit and every missing byte of a keyring is detected") {
    MasterKey master = MasterKey::generate();
    ByteBuffer file = ring_of_three(id16(1), master).encode(master);
    for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
        file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        CHECK_FALSE(Keyring::decode(file, id16(1), master).has_value());
        file[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    }
    for (std::size_t size = 0; size < file.size(); ++size)
        CHECK(Keyring::decode(ByteSpan(file).first(size), id16(1), master).error().code ==
              Errc::corrupt);
    file.push_back(std::byte{0});
    CHECK(Keyring::decode(file, id16(1), master).error().code == Errc::corrupt);
}

TEST_CASE("no secret stands in an encoded keyring") {
    MasterKey master = MasterKey::generate();
    Keyring ring = ring_of_three(id16(1), master);
    ByteBuffer file = ring.encode(master);
    auto holds = [&](ByteSpan secret) {
        return as_text(file).find(as_text(secret)) != std::string_view::npos;
    };
    CHECK_FALSE(holds(master.view()));
    CHECK_FALSE(holds(ring.current(pb::KEY_PURPOSE_WAL)->secret.view()));
    CHECK(holds(master.id()));
}

}  // namespace walvault::storage
