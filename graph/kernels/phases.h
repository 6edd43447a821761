// Work in phases of the same few chunks, each phase reading what the one before wrote.
#pragma once

#include <cstdint>
#include <functional>

#include "graph/base/threads.h"

namespace onnxpress {

// Calls body(phase, chunk) for every chunk in [0, chunks) of every phase in [0, phases); a phase
// begins when the one before is complete. Up to `participants` threads of the pool take part, each
// preferring the same chunks in every phase (what these read stays in its cache), so a phase costs
// no hand-off; a thread that comes late, or not at all, is not waited for. `body` must not throw.
void run_phases(ThreadPool& pool, std::int64_t participants, std::int64_t phases,
                std::int64_t chunks,
                const std::function<void(std::int64_t phase, std::int64_t chunk)>& body);

}  // namespace onnxpress
