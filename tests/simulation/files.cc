#include "tests/simulation/files.h"

#include <algorithm>

namespace walvault::simulation {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

tl::unexpected<Error> absent(const std::string& path) {
    return fail(Errc::not_found, "open " + path + ": No such file or directory");
}

}  // namespace

class SimulatedFiles::Handle final : public File {
public:
    Handle(SimulatedFiles& files, std::shared_ptr<Inode> inode, std::string path)
        : files_(files), inode_(std::move(inode)), path_(std::move(path)) {}

    Result<> write(ByteSpan bytes) override { return put(inode_->now.size(), bytes); }
    Result<> write_at(std::uint64_t offset, ByteSpan bytes) override { return put(offset, bytes); }
    Result<std::size_t> read_at(std::uint64_t offset, MutableByteSpan into) override {
        const ByteBuffer& bytes = inode_->now;
        if (offset >= bytes.size()) return std::size_t{0};
        const std::size_t count = std::min<std::uint64_t>(into.size(), bytes.size() - offset);
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), count, into.begin());
        return count;
    }
    Result<> sync_data() override {
        WV_CHECK(require_whole());
        WV_CHECK(files_.step("fdatasync", path_));
        if (fires(files_.fail_sync_in)) {
            inode_->pending.clear();
            return break_with(Errc::io, "fdatasync " + path_ + ": Input/output error");
        }
        for (const Change& change : inode_->pending)
            apply(change, inode_->disk);
        inode_->pending.clear();
        return {};
    }
    Result<std::uint64_t> size() override { return std::uint64_t{inode_->now.size()}; }
    Result<> truncate(std::uint64_t size) override {
        WV_CHECK(require_whole());
        WV_CHECK(files_.step("truncate", path_));
        change({.truncates = true, .offset = size});
        return {};
    }

private:
    Result<> require_whole() const {
        if (!broken_) return {};
        return fail(Errc::io, path_ + " is not used any more after an earlier write or sync error");
    }
    Result<> break_with(Errc code, std::string message) {
        broken_ = true;
        return fail(code, std::move(message));
    }
    void change(Change made) {
        apply(made, inode_->now);
        inode_->pending.push_back(std::move(made));
    }
    Result<> put(std::uint64_t offset, ByteSpan bytes) {
        WV_CHECK(require_whole());
        auto fine = files_.step("write", path_);
        if (!fine) return break_with(fine.error().code, fine.error().message);
        const bool fails = fires(files_.fail_write_in);
        const std::uint64_t room = files_.room_bytes();
        const std::uint64_t size = inode_->now.size();
        const std::uint64_t end = offset + bytes.size();
        const bool full = end > size && end - size > room;
        if (fails) bytes = bytes.first(bytes.size() / 2);
        if (full) bytes = bytes.first(std::min<std::uint64_t>(size + room - offset, bytes.size()));
        if (!bytes.empty()) change({.offset = offset, .bytes = {bytes.begin(), bytes.end()}});
        if (full) return break_with(Errc::no_space, "write " + path_ + ": No space left on device");
        if (fails) return break_with(Errc::io, "write " + path_ + ": Input/output error");
        return {};
    }

    SimulatedFiles& files_;
    std::shared_ptr<Inode> inode_;
    std::string path_;
    bool broken_ = false;
};

class SimulatedFiles::Lock final : public FileLock {
public:
    Lock(std::shared_ptr<Locks> locks, std::string path)
        : locks_(std::move(locks)), path_(std::move(path)) {}
    ~Lock() override { locks_->held.erase(path_); }

private:
    std::shared_ptr<Locks> locks_;
    std::string path_;
};

SimulatedFiles::SimulatedFiles() : root_(std::make_shared<Directory>()) {}

void SimulatedFiles::apply(const Change& change, ByteBuffer& bytes) {
    if (change.truncates) return bytes.resize(change.offset);
    if (bytes.size() < change.offset + change.bytes.size())
        bytes.resize(change.offset + change.bytes.size());
    std::ranges::copy(change.bytes, bytes.begin() + static_cast<std::ptrdiff_t>(change.offset));
}

void SimulatedFiles::apply(const NameChange& change, std::map<std::string, Entry>& names) {
    if (!change.gone.empty()) names.erase(change.gone);
    if (!change.appeared.empty()) names[change.appeared] = change.entry;
}

void SimulatedFiles::cut_write(const Change& change, Cut how, Random& random, ByteBuffer& bytes) {
    const std::uint64_t fate = how == Cut::everything_kept ? 0 : random.below(5);
    if (change.truncates || fate <= 1) {
        if (fate == 0 || !change.truncates) apply(change, bytes);
        return;
    }
    if (fate == 2) return;
    if (change.offset + change.bytes.size() <= bytes.size())
        return cut_overwrite(change, random, bytes);
    // Whole sectors of it, from its start on; with `fate` 4 the size is that of the whole.
    const std::uint64_t end = change.offset + change.bytes.size();
    const std::uint64_t sectors = (end - change.offset) / kSectorBytes + 1;
    const std::uint64_t reached =
        (change.offset / kSectorBytes + random.below(sectors + 1)) * kSectorBytes;
    const std::uint64_t stop = std::clamp(reached, change.offset, end);
    Change kept{.offset = change.offset, .bytes = change.bytes};
    kept.bytes.resize(stop - change.offset);
    if (!kept.bytes.empty()) apply(kept, bytes);
    if (fate == 4 && bytes.size() < end) bytes.resize(end);
}

// A disk writes the sectors of what was there already in any order.
void SimulatedFiles::cut_overwrite(const Change& change, Random& random, ByteBuffer& bytes) {
    const std::uint64_t end = change.offset + change.bytes.size();
    for (std::uint64_t at = change.offset; at < end;) {
        const std::uint64_t stop = std::min(end, (at / kSectorBytes + 1) * kSectorBytes);
        const auto from = change.bytes.begin() + static_cast<std::ptrdiff_t>(at - change.offset);
        if (random.one_in(2))
            std::copy_n(from, stop - at, bytes.begin() + static_cast<std::ptrdiff_t>(at));
        at = stop;
    }
}

std::shared_ptr<SimulatedFiles::Inode> SimulatedFiles::cut(const Inode& inode, Cut how,
                                                           Random& random) {
    auto left = std::make_shared<Inode>();
    left->disk = inode.disk;
    if (how != Cut::everything_lost)
        for (const Change& change : inode.pending)
            cut_write(change, how, random, left->disk);
    left->now = left->disk;
    return left;
}

std::shared_ptr<SimulatedFiles::Directory> SimulatedFiles::cut(const Directory& directory, Cut how,
                                                               Random& random) {
    std::map<std::string, Entry> names = directory.disk;
    std::size_t kept = directory.pending.size();
    if (how == Cut::everything_lost) kept = 0;
    if (how == Cut::drawn) kept = random.below(kept + 1);
    for (std::size_t i = 0; i < kept; ++i)
        apply(directory.pending[i], names);
    auto left = std::make_shared<Directory>();
    for (const auto& [name, entry] : names) {
        Entry& now = left->disk[name];
        if (entry.file) now.file = cut(*entry.file, how, random);
        if (entry.directory) now.directory = cut(*entry.directory, how, random);
    }
    left->now = left->disk;
    return left;
}

std::unique_ptr<SimulatedFiles> SimulatedFiles::after_power_cut(Cut how, Random& random) const {
    auto left = std::make_unique<SimulatedFiles>();
    left->locks_are_seen = locks_are_seen;
    left->root_ = cut(*root_, how, random);
    return left;
}

void SimulatedFiles::cut_power(Random& random) {
    root_ = cut(*root_, Cut::drawn, random);
    locks_ = std::make_shared<Locks>();
}

std::uint64_t SimulatedFiles::bytes_of(const Directory& directory) {
    std::uint64_t sum = 0;
    for (const auto& [name, entry] : directory.now)
        sum += entry.file ? entry.file->now.size() : bytes_of(*entry.directory);
    return sum;
}

std::uint64_t SimulatedFiles::room_bytes() const {
    if (capacity_bytes == ~std::uint64_t{0}) return capacity_bytes;
    return capacity_bytes - std::min(used_bytes(), capacity_bytes);
}

std::uint64_t SimulatedFiles::used_bytes() const { return bytes_of(*root_); }

std::map<std::string, std::uint64_t> SimulatedFiles::sizes() const {
    std::map<std::string, std::uint64_t> found;
    std::vector<std::pair<std::string, std::shared_ptr<Directory>>> pending{{"", root_}};
    while (!pending.empty()) {
        auto [path, directory] = pending.back();
        pending.pop_back();
        for (const auto& [name, entry] : directory->now)
            if (entry.file)
                found[path + "/" + name] = entry.file->now.size();
            else
                pending.emplace_back(path + "/" + name, entry.directory);
    }
    return found;
}

Result<> SimulatedFiles::step(std::string_view doing, const std::string& path) {
    if (is_frozen)
        return fail(Errc::io, std::string(doing) + " " + path + ": the process has ended");
    ++operations_;
    if (!fires(crash_in)) return {};
    is_frozen = true;
    throw Crash();
}

Result<std::shared_ptr<SimulatedFiles::Directory>> SimulatedFiles::parent_of(
    const std::string& path, std::string& name) const {
    WV_ASSERT(path.starts_with('/'));
    std::shared_ptr<Directory> at = root_;
    std::size_t from = 1;
    for (std::size_t slash; (slash = path.find('/', from)) != std::string::npos; from = slash + 1) {
        auto found = at->now.find(path.substr(from, slash - from));
        if (found == at->now.end() || !found->second.directory) return absent(path);
        at = found->second.directory;
    }
    name = path.substr(from);
    return at;
}

Result<SimulatedFiles::Entry> SimulatedFiles::find(const std::string& path) const {
    if (path == "/") return Entry{.file = nullptr, .directory = root_};
    std::string name;
    WV_TRY(auto parent, parent_of(path, name));
    auto found = parent->now.find(name);
    if (found == parent->now.end()) return absent(path);
    return found->second;
}

void SimulatedFiles::change_names(Directory& directory, NameChange change) {
    apply(change, directory.now);
    directory.pending.push_back(std::move(change));
}

Result<std::unique_ptr<File>> SimulatedFiles::create(const std::string& path, unsigned) {
    std::string name;
    WV_TRY(auto parent, parent_of(path, name));
    if (parent->now.contains(name)) return fail(Errc::refused, "open " + path + ": File exists");
    WV_CHECK(step("create", path));
    auto inode = std::make_shared<Inode>();
    change_names(*parent, {.gone = "", .appeared = name, .entry = {inode, nullptr}});
    return std::make_unique<Handle>(*this, inode, path);
}

Result<std::unique_ptr<File>> SimulatedFiles::open_append(const std::string& path) {
    WV_TRY(Entry entry, find(path));
    if (!entry.file) return fail(Errc::io, "open " + path + ": Is a directory");
    return std::make_unique<Handle>(*this, entry.file, path);
}

Result<std::unique_ptr<File>> SimulatedFiles::open_read(const std::string& path) {
    return open_append(path);
}

Result<> SimulatedFiles::rename(const std::string& from, const std::string& to) {
    std::string old_name, new_name;
    WV_TRY(auto old_parent, parent_of(from, old_name));
    WV_TRY(auto new_parent, parent_of(to, new_name));
    WV_ASSERT(old_parent == new_parent);
    WV_TRY(Entry entry, find(from));
    WV_CHECK(step("rename", from));
    change_names(*old_parent, {.gone = old_name, .appeared = new_name, .entry = entry});
    return {};
}

Result<> SimulatedFiles::remove(const std::string& path) {
    std::string name;
    WV_TRY(auto parent, parent_of(path, name));
    auto found = parent->now.find(name);
    if (found == parent->now.end()) return absent(path);
    if (found->second.directory && !found->second.directory->now.empty())
        return fail(Errc::io, "remove " + path + ": Directory not empty");
    // Destructors remove what they leave unfinished, and nothing may be thrown out of one.
    if (crash_in == 1) is_frozen = true;
    if (is_frozen) return fail(Errc::io, "remove " + path + ": the process has ended");
    WV_CHECK(step("remove", path));
    change_names(*parent, {.gone = name, .appeared = ""});
    return {};
}

Result<> SimulatedFiles::sync_directory(const std::string& path) {
    WV_TRY(Entry entry, find(path));
    if (!entry.directory) return fail(Errc::io, "open " + path + ": Not a directory");
    WV_CHECK(step("fsync", path));
    if (fires(fail_directory_in)) return fail(Errc::io, "fsync " + path + ": Input/output error");
    for (const NameChange& change : entry.directory->pending)
        apply(change, entry.directory->disk);
    entry.directory->pending.clear();
    return {};
}

Result<> SimulatedFiles::make_directories(const std::string& path, unsigned) {
    std::shared_ptr<Directory> at = root_;
    std::size_t from = 1;
    while (from <= path.size()) {
        const std::size_t slash = std::min(path.find('/', from), path.size());
        const std::string name = path.substr(from, slash - from);
        if (!at->now.contains(name)) {
            WV_CHECK(step("mkdir", path));
            change_names(
                *at,
                {.gone = "", .appeared = name, .entry = {nullptr, std::make_shared<Directory>()}});
        }
        at = at->now[name].directory;
        WV_ASSERT(at != nullptr);
        from = slash + 1;
    }
    return {};
}

Result<> SimulatedFiles::symlink(const std::string&, const std::string& path) {
    return fail(Errc::io, "symlink " + path + ": a repository has none");
}

Result<std::vector<FileInfo>> SimulatedFiles::list(const std::string& path) {
    WV_TRY(Entry entry, find(path));
    if (!entry.directory) return absent(path);
    std::vector<FileInfo> found;
    for (const auto& [name, child] : entry.directory->now)
        found.push_back({.name = name,
                         .is_directory = child.directory != nullptr,
                         .is_symlink = false,
                         .size_bytes = child.file ? child.file->now.size() : 0,
                         .mode = 0600});
    return found;
}

Result<FileInfo> SimulatedFiles::info(const std::string& path) {
    WV_TRY(Entry entry, find(path));
    return FileInfo{.name = path.substr(path.find_last_of('/') + 1),
                    .is_directory = entry.directory != nullptr,
                    .is_symlink = false,
                    .size_bytes = entry.file ? entry.file->now.size() : 0,
                    .mode = 0600};
}

Result<std::uint64_t> SimulatedFiles::available_bytes(const std::string&) { return room_bytes(); }

Result<std::uint64_t> SimulatedFiles::size_bytes(const std::string&) { return capacity_bytes; }

Result<std::unique_ptr<FileLock>> SimulatedFiles::lock(const std::string& path) {
    if (!find(path)) {
        auto made = create(path, 0600);
        if (!made) return fail(made.error());
    }
    if (!locks_are_seen) return std::make_unique<Lock>(std::make_shared<Locks>(), path);
    if (!locks_->held.insert(path).second)
        return fail(Errc::busy, path + " is locked by another process");
    return std::make_unique<Lock>(locks_, path);
}

}  // namespace walvault::simulation
