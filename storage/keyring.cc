#include "storage/keyring.h"

#include <algorithm>

#include "base/crc32c.h"
#include "storage/blake2b.h"
#include "storage/private_file.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kKeyBytes = crypto_aead_xchacha20poly1305_ietf_KEYBYTES;
constexpr std::string_view kKeyLineStart = "walvault-key-1 ";
constexpr std::size_t kKeyTextBytes = 44;  // 32 bytes in base64
constexpr std::size_t kKeyCheckDigits = 8;
constexpr std::size_t kKeyLineBytes = kKeyLineStart.size() + kKeyTextBytes + 1 + kKeyCheckDigits;
constexpr std::uint64_t kKeyFileBytesMax = 1_KiB;

constexpr std::string_view kKeyringMagic = "WVKEYS1\n";
constexpr std::size_t kMacBytes = 32;
constexpr std::uint32_t kKeyringContentBytesMax = 4 << 20;
constexpr std::uint32_t kKeyringVersion = 1;
constexpr std::size_t kNonceBytes = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr std::size_t kWrappedBytes = kKeyBytes + crypto_aead_xchacha20poly1305_ietf_ABYTES;

std::string quoted_command(const std::string& command) { return "`" + command + "`"; }

tl::unexpected<Error> bad_key_line(const std::string& what) {
    return fail(Errc::wrong_key, "the master key " + what,
                "It is one line: walvault-key-1, 44 characters of base64, 8 hexadecimal digits. "
                "Compare it with your printed copy.");
}

// Over the text, so that any one wrong or swapped character is seen.
std::string key_check_digits(ByteSpan key_text) {
    std::array<std::byte, 4> check;
    store_be(check.data(), crc32c(key_text));
    return to_hex(check);
}

std::string parent_of(const std::string& path) {
    std::size_t slash = path.find_last_of('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

SecretBytes subkey(const MasterKey& master, std::string_view context) {
    SecretBytes key(kKeyBytes);
    blake2b(key.mutable_view(), master.view(), {as_bytes(context)});
    return key;
}
SecretBytes wrapping_key(const MasterKey& master) {
    return subkey(master, "walvault keyring wrap 1");
}

Id32 keyring_mac(const MasterKey& master, ByteSpan bytes) {
    SecretBytes key = subkey(master, "walvault keyring mac 1");
    Id32 mac;
    blake2b(mac, key.view(), {bytes});
    return mac;
}

// Everything that tells one wrapped key from another; the class last, for it alone has no fixed
// width.
ByteBuffer wrap_binding(const Id16& repository_id, const pb::WrappedKey& key) {
    ByteBuffer bound;
    append(bound, as_bytes("WVWRAP1\n"));
    append(bound, repository_id);
    append(bound, as_bytes(key.key_id()));
    append_le(bound, static_cast<std::int64_t>(key.made_at_us()));
    append_le(bound, static_cast<std::uint32_t>(key.purpose()));
    append_le(bound, static_cast<std::uint32_t>(key.data_class().size()));
    append(bound, as_bytes(key.data_class()));
    return bound;
}

Id16 wrap_commitment(const SecretBytes& wrap_key, const pb::WrappedKey& key) {
    Id16 commitment;
    blake2b(commitment, wrap_key.view(),
            {as_bytes("commit"), as_bytes(key.key_id()), as_bytes(key.nonce())});
    return commitment;
}

void wrap(const DataKey& key, const Id16& repository_id, const SecretBytes& wrap_key,
          pb::WrappedKey& out) {
    out.set_key_id(std::string(as_text(key.id)));
    out.set_purpose(key.purpose);
    out.set_data_class(key.data_class);
    out.set_made_at_us(key.made_at.time_since_epoch().count());
    std::array<std::byte, kNonceBytes> nonce;
    randombytes_buf(nonce.data(), nonce.size());
    out.set_nonce(std::string(as_text(nonce)));
    ByteBuffer bound = wrap_binding(repository_id, out);
    std::array<std::byte, kWrappedBytes> wrapped;
    crypto_aead_xchacha20poly1305_ietf_encrypt(
        raw(wrapped.data()), nullptr, raw(key.secret.view().data()), key.secret.view().size(),
        raw(bound.data()), bound.size(), nullptr, raw(nonce.data()), raw(wrap_key.view().data()));
    out.set_wrapped(std::string(as_text(wrapped)));
    out.set_commitment(std::string(as_text(wrap_commitment(wrap_key, out))));
}

Result<std::unique_ptr<DataKey>> unwrap(const pb::WrappedKey& wrapped, const Id16& repository_id,
                                        const SecretBytes& wrap_key) {
    auto key = std::make_unique<DataKey>();
    if (wrapped.key_id().size() != key->id.size() || wrapped.nonce().size() != kNonceBytes ||
        wrapped.wrapped().size() != kWrappedBytes)
        return fail(Errc::corrupt, "a key of the keyring has fields of a wrong length");
    std::string name = "key " + to_hex(as_bytes(wrapped.key_id())) + " of the keyring ";
    if (!equal_in_constant_time(wrap_commitment(wrap_key, wrapped), as_bytes(wrapped.commitment())))
        return fail(Errc::corrupt, name + "was not wrapped by this master key");
    ByteBuffer bound = wrap_binding(repository_id, wrapped);
    ByteSpan sealed = as_bytes(wrapped.wrapped());
    key->secret = SecretBytes(kKeyBytes);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(
            raw(key->secret.mutable_view().data()), nullptr, nullptr, raw(sealed.data()),
            sealed.size(), raw(bound.data()), bound.size(), raw(as_bytes(wrapped.nonce()).data()),
            raw(wrap_key.view().data())) != 0)
        return fail(Errc::corrupt, name + "fails authentication");
    std::ranges::copy(as_bytes(wrapped.key_id()), key->id.begin());
    key->purpose = wrapped.purpose();
    key->data_class = wrapped.data_class();
    key->made_at = WallTime(Micros(wrapped.made_at_us()));
    return key;
}

// What to say of a keyring whose MAC does not match. Nothing in `content` is believed but this.
Error why_mac_fails(ByteSpan content, const MasterKey& master) {
    pb::KeyringContent keyring;
    bool parsed = keyring.ParseFromArray(content.data(), static_cast<int>(content.size()));
    Id16 master_id = master.id();
    if (parsed && keyring.master_key_id().size() == master_id.size() &&
        keyring.master_key_id() != as_text(master_id))
        return Error{Errc::wrong_key,
                     "the keyring is wrapped by master key " +
                         to_hex(as_bytes(keyring.master_key_id())) + ", the one given is " +
                         to_hex(master_id),
                     "Give the key file that this repository was made with."};
    return Error{
        Errc::corrupt, "the keyring fails authentication: its bytes are not the ones written",
        "An older generation in keyring/ may be whole, and so may a copy in another tier."};
}

// The serialized KeyringContent, after its MAC was checked.
Result<ByteSpan> authenticated_content(ByteSpan file, const MasterKey& master) {
    ByteReader reader(file);
    if (as_text(reader.bytes(kKeyringMagic.size())) != kKeyringMagic)
        return fail(Errc::corrupt, "the file does not begin as a keyring does");
    auto length = reader.le<std::uint32_t>();
    if (length > kKeyringContentBytesMax || reader.remaining() != length + kMacBytes)
        return fail(Errc::corrupt, "the keyring announces " + std::to_string(length) +
                                       " bytes of content and has " + std::to_string(file.size()) +
                                       " bytes in all");
    ByteSpan content = reader.bytes(length);
    ByteSpan announced_mac = reader.bytes(kMacBytes);
    if (!equal_in_constant_time(keyring_mac(master, file.first(file.size() - kMacBytes)),
                                announced_mac))
        return fail(why_mac_fails(content, master));
    return content;
}

}  // namespace

MasterKey MasterKey::generate() {
    SecretBytes secret(kKeyBytes);
    randombytes_buf(secret.mutable_view().data(), kKeyBytes);
    return MasterKey(std::move(secret));
}

Result<MasterKey> MasterKey::parse(std::string_view line) {
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r' || line.back() == ' '))
        line.remove_suffix(1);
    if (!line.starts_with(kKeyLineStart)) return bad_key_line("does not begin with walvault-key-1");
    if (line.size() != kKeyLineBytes)
        return bad_key_line("has " + std::to_string(line.size()) + " characters where " +
                            std::to_string(kKeyLineBytes) + " belong");
    std::string_view text = line.substr(kKeyLineStart.size(), kKeyTextBytes);
    std::string_view check = line.substr(kKeyLineStart.size() + kKeyTextBytes + 1);
    if (line[kKeyLineBytes - kKeyCheckDigits - 1] != ' ' ||
        key_check_digits(as_bytes(text)) != check)
        return bad_key_line("does not fit its check digits: at least one character is wrong");
    SecretBytes secret(kKeyBytes);
    std::size_t size = 0;
    if (sodium_base642bin(raw(secret.mutable_view().data()), kKeyBytes, text.data(), text.size(),
                          nullptr, &size, nullptr, sodium_base64_VARIANT_ORIGINAL) != 0 ||
        size != kKeyBytes)
        return bad_key_line("is not 32 bytes in base64");
    return MasterKey(std::move(secret));
}

Result<MasterKey> MasterKey::read_file(FileSystem& files, const std::string& path) {
    auto info = files.info(path);
    if (!info && info.error().code == Errc::not_found)
        return fail(Errc::wrong_key, "there is no key file " + path,
                    "A new repository: " + quoted_command("walvault key generate --out " + path) +
                        ". An existing one opens only with the key it was made with.");
    if (!info) return fail(Errc::wrong_key, "read the key file: " + info.error().message);
    WV_CHECK(check_private_file(*info, "the key file " + path, path, kKeyFileBytesMax));
    auto bytes = walvault::read_file(files, path, kKeyFileBytesMax);
    if (!bytes)
        return fail(Errc::wrong_key, "read the key file: " + bytes.error().message,
                    "It must be readable by the user that runs walvault.");
    auto key = parse(as_text(*bytes));
    wipe(*bytes);
    if (!key) return fail_while(path, std::move(key).error());
    return key;
}

Result<> MasterKey::write_file(FileSystem& files, const std::string& path) const {
    ByteBuffer line(as_bytes(kKeyLineStart).begin(), as_bytes(kKeyLineStart).end());
    line.resize(kKeyLineStart.size() + kKeyTextBytes + 1);  // base64 ends it with a NUL
    std::byte* text = line.data() + kKeyLineStart.size();
    sodium_bin2base64(reinterpret_cast<char*>(text), kKeyTextBytes + 1, raw(view().data()),
                      kKeyBytes, sodium_base64_VARIANT_ORIGINAL);
    line.back() = std::byte{' '};
    std::string check = key_check_digits(ByteSpan(text, kKeyTextBytes));
    ByteBuffer whole(kKeyLineBytes + 1);
    std::ranges::copy(line, whole.begin());
    std::ranges::copy(as_bytes(check), whole.begin() + static_cast<std::ptrdiff_t>(line.size()));
    whole.back() = std::byte{'\n'};
    wipe(line);
    auto written = [&]() -> Result<> {
        WV_TRY(auto file, files.create(path, 0600));
        WV_CHECK(file->write(whole));
        WV_CHECK(file->sync_data());
        return files.sync_directory(parent_of(path));
    }();
    wipe(whole);
    if (!written && written.error().code == Errc::refused)
        return fail(Errc::refused, "the key file " + path + " exists and is not overwritten",
                    "Choose another name, or use the key that is there.");
    if (!written) return fail_while("write the key file", std::move(written).error());
    return {};
}

Id16 MasterKey::id() const {
    Id16 id;
    blake2b(id, secret_.view(), {as_bytes("walvault master key id 1")});
    return id;
}

Keyring Keyring::create(const Id16& repository_id, const MasterKey& master) {
    Keyring keyring;
    keyring.repository_id_ = repository_id;
    keyring.master_key_id_ = master.id();
    return keyring;
}

Result<Keyring> Keyring::decode(ByteSpan file, const Id16& repository_id, const MasterKey& master) {
    WV_TRY(ByteSpan bytes, authenticated_content(file, master));
    pb::KeyringContent content;
    if (!content.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
        return fail(Errc::corrupt, "the content of the keyring cannot be parsed");
    if (content.format_version() != kKeyringVersion)
        return fail(Errc::unsupported, "the keyring has format version " +
                                           std::to_string(content.format_version()) +
                                           ", this build knows " + std::to_string(kKeyringVersion));
    if (content.repository_id() != as_text(repository_id))
        return fail(Errc::corrupt, "the keyring belongs to repository " +
                                       to_hex(as_bytes(content.repository_id())) + ", not to " +
                                       to_hex(repository_id));
    Keyring keyring = create(repository_id, master);
    keyring.generation_ = content.generation();
    SecretBytes wrap_key = wrapping_key(master);
    for (const pb::WrappedKey& wrapped : content.keys()) {
        WV_TRY(auto key, unwrap(wrapped, repository_id, wrap_key));
        if (keyring.find(key->id) != nullptr)
            return fail(Errc::corrupt, "the keyring holds key " + to_hex(key->id) + " twice");
        keyring.keys_.push_back(std::move(key));
    }
    return keyring;
}

ByteBuffer Keyring::encode(const MasterKey& master) const {
    WV_ASSERT(master.id() == master_key_id_);
    pb::KeyringContent content;
    content.set_format_version(kKeyringVersion);
    content.set_repository_id(std::string(as_text(repository_id_)));
    content.set_generation(generation_);
    content.set_master_key_id(std::string(as_text(master_key_id_)));
    SecretBytes wrap_key = wrapping_key(master);
    for (const auto& key : keys_)
        wrap(*key, repository_id_, wrap_key, *content.add_keys());
    std::string bytes = content.SerializeAsString();
    WV_ASSERT(bytes.size() <= kKeyringContentBytesMax);
    ByteBuffer file;
    append(file, as_bytes(kKeyringMagic));
    append_le(file, static_cast<std::uint32_t>(bytes.size()));
    append(file, as_bytes(bytes));
    append(file, keyring_mac(master, file));
    return file;
}

const DataKey& Keyring::add(pb::KeyPurpose purpose, const std::string& data_class, WallTime now) {
    auto key = std::make_unique<DataKey>();
    key->id = random_id16();
    key->purpose = purpose;
    key->data_class = data_class;
    key->made_at = now;
    key->secret = SecretBytes(kKeyBytes);
    randombytes_buf(key->secret.mutable_view().data(), kKeyBytes);
    ++generation_;
    keys_.push_back(std::move(key));
    return *keys_.back();
}

const DataKey* Keyring::find(const Id16& key_id) const {
    auto found = std::ranges::find_if(keys_, [&](const auto& key) { return key->id == key_id; });
    return found == keys_.end() ? nullptr : found->get();
}

const DataKey* Keyring::current(pb::KeyPurpose purpose, const std::string& data_class) const {
    for (std::size_t i = keys_.size(); i-- > 0;)
        if (keys_[i]->purpose == purpose && keys_[i]->data_class == data_class)
            return keys_[i].get();
    return nullptr;
}

}  // namespace walvault::storage
