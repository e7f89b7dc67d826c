// Threads that take a step together, and the places where they wait for each other.
//
// Knows threads only. Waiting is by spinning for some microseconds, then by giving the core away:
// a node shares its machine with others.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace dslm {

struct Range { int start, stop; };

inline Range share(int count, int rank, int size) {
    const int each = count / size, more = count % size;
    const int start = rank * each + std::min(rank, more);
    return {start, start + each + (rank < more)};
}

class Team {
public:
    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    }
    ~Team() {
        { std::lock_guard<std::mutex> hold(mutex_); over_ = true; ++round_; }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }
    int size() const { return size_; }

    // `work(rank)` on all threads, this one included; returns when all have done it.
    template <class Work> void run(Work& work) {
        if (size_ == 1) return work(0);
        job_ = [](void* context, int rank) { (*static_cast<Work*>(context))(rank); };
        context_ = &work;
        done_.store(0, std::memory_order_relaxed);
        { std::lock_guard<std::mutex> hold(mutex_); ++round_; }
        wake_.notify_all();
        job_(context_, 0);
        wait_until([&] { return done_.load(std::memory_order_acquire) == size_ - 1; });
    }

    void meet() {                // until all are here
        if (size_ == 1) return;
        const int phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        wait_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
    }

private:
    template <class Condition> static void wait_until(Condition&& holds) {
        for (int spins = 0; !holds(); ++spins) {
            if (spins < 300) _mm_pause();
            else sched_yield();  // another program has a core that we wait for
        }
    }
    void serve(int rank) {
        uint64_t seen = 0;
        for (;;) {
            {
                std::unique_lock<std::mutex> hold(mutex_);
                wake_.wait(hold, [&] { return round_ != seen; });
                seen = round_;
                if (over_) return;
            }
            job_(context_, rank);
            done_.fetch_add(1, std::memory_order_release);
        }
    }
    const int size_;
    std::mutex mutex_;
    std::condition_variable wake_;
    uint64_t round_ = 0;
    bool over_ = false;
    void (*job_)(void*, int) = nullptr;
    void* context_ = nullptr;
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> phase_{0};
    std::vector<std::thread> threads_;   // last: they use all of the above
};

}  // namespace dslm
