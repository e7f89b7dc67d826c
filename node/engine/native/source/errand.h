// Memory that will be read soon, asked for a little at a time beside other work.
//
// Knows addresses only. Products of many rows leave the memory idle; what comes after them is fetched meanwhile.
#pragma once

#include <cstddef>
#include <vector>

#include "simd.h"

namespace dslm {

class Errand {
public:
    void clear() {
        blocks_.clear();
        next_ = 0;
        left_ = rows_ = 0;
    }
    void add(const void* first, int bytes, size_t stride, int rows) {   // stride in bytes
        blocks_.push_back({static_cast<const char*>(first), bytes, stride, rows});
    }
    // Asks for the next `lines` lines, if there are any. No calls: sums are in registers where this is inlined.
    [[gnu::always_inline]] void go(int lines) {
        for (; lines > 0; --lines) {
            if (left_ <= 0) {
                if (rows_ == 0) {
                    if (next_ == blocks_.size()) return;
                    block_ = blocks_[next_++];
                    rows_ = block_.rows;
                }
                at_ = block_.first;
                left_ = block_.bytes;
                block_.first += block_.stride;
                --rows_;
            }
            ask_for_later(at_, 64);
            at_ += 64;
            left_ -= 64;
        }
    }

private:
    struct Block {
        const char* first;
        int bytes;
        size_t stride;
        int rows;
    };
    std::vector<Block> blocks_;
    size_t next_ = 0;
    Block block_{};
    const char* at_ = nullptr;
    int left_ = 0, rows_ = 0;
};

}  // namespace dslm
