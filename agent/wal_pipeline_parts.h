// What WalPipeline moves, for its own source files only.
#pragma once

#include "agent/wal_pipeline.h"
#include "base/bytes.h"

namespace walvault::agent {

// So little is sealed where it is written: a way to another thread and back takes longer.
inline constexpr std::size_t kSmallFrameBytes = 64_KiB;
inline constexpr std::chrono::seconds kWitnessEvery{1};

struct WalPipeline::Tail {
    std::shared_ptr<const storage::TailPlan> plan;
    std::unique_ptr<storage::TailWriter> writer;  // null until its first frame is written
    pb::PackFooter footer;
    pb::WalSummary summary;
    std::uint32_t cut_frames = 0;
    std::uint32_t synced_frames = 0;
    std::uint64_t cut_bytes = 0;
    std::size_t footer_bytes = 0;  // about, with the frames that are not written yet
    Lsn end_lsn;
    std::uint64_t end_offset = kFileHeaderBytes;
    SteadyTime begun_at{};
    bool complete = false;  // no further frame is cut for it
    bool closing = false;
};

struct WalPipeline::Frame {
    std::shared_ptr<Tail> tail;
    FramePlace place;
    ByteBuffer plain;
    ByteBuffer sealed;
    storage::FrameNotes notes;
    WallTime quiet_until{};
    bool is_sealed = false;  // or small, and sealed by whoever writes it
    SteadyTime cut_at{};
};

}  // namespace walvault::agent
