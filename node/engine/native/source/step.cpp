// One step of a Llama-shaped decoder: all layers of one batch in one call.
//
// Knows the order of a decoder's operations and who does which share of them; must not know Python,
// files or requests. The threads of a team go through the step together and wait for each other
// where one needs what another makes.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "adapters.h"
#include "amx.h"
#include "attention.h"
#include "errand.h"
#include "matrices.h"
#include "shapes.h"
#include "simd.h"
#include "team.h"

namespace dslm {
namespace {

void normalise(const float* row, const float* weight, int width, float epsilon, float* out) {
    Floats squares = zeros();
    for (int i = 0; i < width; i += kLanes) squares = fused(load(row + i), load(row + i), squares);
    const Floats factor = all(1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + epsilon));
    for (int i = 0; i < width; i += kLanes)
        store(out + i, times(times(load(row + i), factor), load(weight + i)));
}

void add_to(float* row, const float* more, int width) {
    for (int i = 0; i < width; i += kLanes) store(row + i, add(load(row + i), load(more + i)));
}

void gate(float* gates, const float* ups, int width) {  // SiLU(gate) * up, in place of the gate
    for (int i = 0; i < width; i += kLanes) {
        const Floats g = load(gates + i);
        const Floats sigmoid = divide(all(1.0f), add(all(1.0f), exponential(subtract(zeros(), g))));
        store(gates + i, times(times(g, sigmoid), load(ups + i)));
    }
}

// Half-split rotary embedding, then times `scale`.
void rotate(float* vector, const float* cosines, const float* sines, int half, float scale) {
    for (int i = 0; i < half; i += kLanes) {
        const Floats a = load(vector + i), b = load(vector + half + i);
        const Floats c = load(cosines + i), s = load(sines + i);
        store(vector + i, times(subtract(times(a, c), times(b, s)), all(scale)));
        store(vector + half + i, times(fused(a, s, times(b, c)), all(scale)));
    }
}

struct Job {                     // a tile of queries of one key-value head
    int span, kv_head, first, count;
};

struct Room {                    // what a step needs, kept between steps
    std::vector<float> hidden, stacked, more;
    std::vector<float> wide;         // gates and ups: [threads][tokens][64 of each pair that goes together]
    std::vector<float> exact;        // what goes into a product, for adapters
    std::vector<uint16_t> queries;   // [kv_heads][tokens][heads of it][dimension]
    std::vector<Job> jobs;
    std::vector<Run> runs, last_runs;   // of all rows; of those that want logits
    std::vector<int> run_of;         // each row's
    std::vector<std::unique_ptr<AttentionRoom>> attention;   // of each thread
    std::vector<float> line;         // [threads][longest row]
    std::vector<Errand> errands;     // of each thread
    Rows narrow_in, seen_in, wide_in;
    std::atomic<int> next_job{0};
};

class Step {
public:
    Step(const Model& model, const Batch& batch, Team& team, Room& room, bool has_tiles)
        : m(model), b(batch), team(team), r(room), has_tiles(has_tiles),
          group(m.heads / m.kv_heads), width((m.heads + 2 * m.kv_heads) * m.dimension),
          longest(std::max({m.hidden, m.heads * m.dimension, 2 * m.feed_forward})), adapted(batch),
          together(adapted ? std::max(1, std::min(8, 256 / batch.token_count)) : 1) {
        const size_t tokens = static_cast<size_t>(b.token_count);
        grow(r.hidden, tokens * m.hidden);
        grow(r.stacked, tokens * width);
        grow(r.more, tokens * m.hidden);
        grow(r.wide, tokens * 2 * kGroup * together * team.size());
        grow(r.line, static_cast<size_t>(team.size()) * longest);
        grow(r.queries, (tokens * m.heads + kQueries) * m.dimension);
        list_runs();
        const bool is_bf16 = m.bits == 16;
        const int most = std::max(r.runs.back().first + r.runs.back().count(), b.logit_count);
        const bool have_numbers = is_bf16 || std::any_of(r.runs.begin(), r.runs.end(), [](const Run& run) { return run.is_bf16; });
        r.narrow_in.fit(most, m.hidden, !is_bf16, have_numbers);
        r.seen_in.fit(most, m.heads * m.dimension, !is_bf16, have_numbers);
        r.wide_in.fit(most, m.feed_forward, !is_bf16, have_numbers);
        if (adapted) grow(r.exact, tokens * std::max({m.hidden, m.heads * m.dimension, m.feed_forward}));
        while (static_cast<int>(r.attention.size()) < team.size()) r.attention.push_back(std::make_unique<AttentionRoom>());
        for (auto& one : r.attention) one->fit(m.dimension);
        r.errands.resize(static_cast<size_t>(team.size()));
        list_jobs();
    }

    void run(int rank) {
        for (int token = share_of(b.token_count, rank).start; token < share_of(b.token_count, rank).stop; ++token)
            look_up(m.embedding, b.tokens[token], hidden(token));
        for (int layer = 0; layer < m.layer_count; ++layer) block(layer, rank);
        team.meet();
        const Range rows = share_of(b.logit_count, rank);
        for (int i = rows.start; i < rows.stop; ++i) {
            normalise(hidden(b.logit_rows[i]), m.final_norm, m.hidden, m.epsilon, line(rank));
            r.narrow_in.set(i, m.bits == 16, 0, m.hidden, line(rank));
        }
        multiply(m.head, r.narrow_in, r.last_runs, b.logits, rank);
#ifdef DSLM_AMX
        if (has_tiles) release_tiles();
#endif
    }

private:
    template <class T> static void grow(std::vector<T>& vector, size_t size) {
        if (vector.size() < size) vector.resize(size);
    }
    Range share_of(int count, int rank) const { return share(count, rank, team.size()); }
    float* hidden(int token) { return r.hidden.data() + static_cast<size_t>(token) * m.hidden; }
    float* line(int rank) { return r.line.data() + static_cast<size_t>(rank) * longest; }
    size_t page_numbers() const { return static_cast<size_t>(kPage) * m.dimension; }
    size_t head_at(int layer, int head) const {
        return (static_cast<size_t>(layer) * m.kv_heads + head) * b.page_count * page_numbers();
    }

    void list_jobs() {           // the longest last positions first, so that the ends are even
        r.jobs.clear();
        for (int s = b.span_count - 1; s >= 0; --s) {
            const int queries = (b.spans[s].stop - b.spans[s].start) * group;
            for (int first = (queries - 1) / kQueries * kQueries; first >= 0; first -= kQueries)
                for (int head = 0; head < m.kv_heads; ++head)
                    r.jobs.push_back({s, head, first, std::min(kQueries, queries - first)});
        }
    }

    // Neighbours that are multiplied in one way: as bf16 in a model of 16 bits and, where four bits can be widened, in long chunks.
    void list_runs() {
        const bool may_widen = has_tiles && std::all_of(m.layers, m.layers + m.layer_count, [](const Layer& layer) {
            return layer.query_key_value.bits == 4 && layer.output.bits == 4 && layer.gate_up.bits == 4 && layer.down.bits == 4;
        });
        r.runs.clear();
        r.run_of.clear();
        for (int s = 0; s < b.span_count; ++s) {
            const int start = b.spans[s].start, stop = b.spans[s].stop;
            const bool is_bf16 = m.bits == 16 || (may_widen && stop - start >= kWideChunk);
            if (r.runs.empty()) r.runs.push_back({start, start, 0, is_bf16});
            else if (const Run before = r.runs.back(); before.is_bf16 != is_bf16)
                r.runs.push_back({start, start, (before.first + before.count() + kTile - 1) / kTile * kTile, is_bf16});
            r.runs.back().stop = stop;
            r.run_of.resize(static_cast<size_t>(stop), static_cast<int>(r.runs.size()) - 1);
        }
        r.last_runs.clear();
        if (b.logit_count) r.last_runs.push_back({0, b.logit_count, 0, m.bits == 16});
    }

    void multiply(const Matrix& matrix, const Rows& in, const std::vector<Run>& runs, float* out, int rank) {
        team.meet();
        panels_of(matrix, in, runs, out, share_of(matrix.rows / kLanes, rank));
        team.meet();
    }
    void panels_of(const Matrix& matrix, const Rows& in, const std::vector<Run>& runs, float* out, Range mine, Errand* errand = nullptr) {
        product(matrix, in, runs, {out + mine.start * kLanes, matrix.rows}, mine, has_tiles, errand);
    }
    // A product of a layer, `place` its number among all, with what adapters add.
    void multiply(int place, const Matrix& matrix, const Rows& in, float* out, int rank) {
        if (!adapted) return multiply(matrix, in, r.runs, out, rank);
        const Range panels = share_of(matrix.rows / kLanes, rank), columns{panels.start * kLanes, panels.stop * kLanes};
        Errand& errand = r.errands[rank];
        errand.clear();
        adapted.foretell(place, columns, errand);
        team.meet();
        adapted.reduce(place, r.exact.data(), rank, team.size(), has_tiles);
        panels_of(matrix, in, r.runs, out, panels, &errand);
        team.meet();
        adapted.expand(place, {out, matrix.rows, 0}, columns);
        team.meet();
    }
    // Gates and ups lie in turns, 32 of each: what a thread has multiplied it can gate, while it is warm.
    void feed(int place, const Matrix& matrix, int rank) {
        const Range pairs = share_of(m.feed_forward / kGroup, rank);
        team.meet();
        if (adapted) {
            adapted.reduce(place, r.exact.data(), rank, team.size(), has_tiles);
            team.meet();
        }
        float* part = r.wide.data() + static_cast<size_t>(rank) * b.token_count * 2 * kGroup * together;
        for (int pair = pairs.start; pair < pairs.stop; pair += together) {
            const int stop = std::min(pairs.stop, pair + together), stride = 2 * kGroup * (stop - pair);
            const Range gates{pair * kGroup, stop * kGroup}, ups{m.feed_forward + gates.start, m.feed_forward + gates.stop};
            Errand& errand = r.errands[rank];
            if (adapted) {
                errand.clear();
                adapted.foretell(place, gates, errand);
                adapted.foretell(place, ups, errand);
            }
            product(matrix, r.narrow_in, r.runs, {part, stride}, {4 * pair, 4 * stop}, has_tiles, adapted ? &errand : nullptr);
            if (adapted) {
                const Laid wide{part - pair * 2 * kGroup, stride, m.feed_forward};
                adapted.expand(place, wide, gates);
                adapted.expand(place, wide, ups);
            }
            for (int one = pair; one < stop; ++one) gate_pair(one, {part + (one - pair) * 2 * kGroup, stride});
        }
    }
    void gate_pair(int pair, Place at) {
        for (int t = 0; t < b.token_count; ++t) {
            float* gates = at.out + static_cast<size_t>(t) * at.stride;
            gate(gates, gates + kGroup, kGroup);
            set(r.wide_in, t, pair * kGroup, kGroup, gates);
        }
    }
    // What goes into the next product of a layer; adapters get it unrounded.
    void set(Rows& rows, int token, int start, int count, const float* values) {
        const Run& run = r.runs[r.run_of[token]];
        rows.set(run.first + token - run.start, run.is_bf16, start, count, values);
        if (adapted) std::copy(values, values + count, r.exact.data() + static_cast<size_t>(token) * rows.groups * kGroup + start);
    }
    void enter(int to, const float* row, const float* weight, int rank) {
        normalise(row, weight, m.hidden, m.epsilon, line(rank));
        set(r.narrow_in, to, 0, m.hidden, line(rank));
    }

    void block(int index, int rank) {
        const Layer& layer = m.layers[index];
        const Range mine = share_of(b.token_count, rank);
        for (int t = mine.start; t < mine.stop; ++t) enter(t, hidden(t), layer.attention_norm, rank);
        multiply(4 * index, layer.query_key_value, r.narrow_in, r.stacked.data(), rank);
        if (rank == 0) r.next_job.store(0, std::memory_order_relaxed);
        for (int t = mine.start; t < mine.stop; ++t) keep(index, t);
        team.meet();
        look(index, rank);
        multiply(4 * index + 1, layer.output, r.seen_in, r.more.data(), rank);
        for (int t = mine.start; t < mine.stop; ++t) {
            add_to(hidden(t), r.more.data() + static_cast<size_t>(t) * m.hidden, m.hidden);
            enter(t, hidden(t), layer.feed_forward_norm, rank);
        }
        feed(4 * index + 2, layer.gate_up, rank);
        multiply(4 * index + 3, layer.down, r.wide_in, r.more.data(), rank);
        for (int t = mine.start; t < mine.stop; ++t)
            add_to(hidden(t), r.more.data() + static_cast<size_t>(t) * m.hidden, m.hidden);
    }

    const Span& span_of(int token) const {
        int s = 0;
        while (b.spans[s].stop <= token) ++s;
        return b.spans[s];
    }
    void keep(int layer, int token) {   // rotate; queries to their place, keys and values to pages
        const Span& span = span_of(token);
        const int position = span.position + token - span.start, half = m.dimension / 2;
        const int page = b.pages[span.pages + position / kPage], offset = position % kPage;
        const float *cosines = m.cosines + static_cast<size_t>(position) * half, *sines = m.sines + static_cast<size_t>(position) * half;
        float* row = r.stacked.data() + static_cast<size_t>(token) * width;
        const float scale = 1.0f / std::sqrt(static_cast<float>(m.dimension));
        for (int head = 0; head < m.heads; ++head, row += m.dimension) {
            rotate(row, cosines, sines, half, scale);
            const size_t at = (static_cast<size_t>(head / group) * b.token_count + token) * group + head % group;
            for (int i = 0; i < m.dimension; i += kLanes) narrow(r.queries.data() + at * m.dimension + i, load(row + i));
        }
        for (int head = 0; head < m.kv_heads; ++head, row += m.dimension) {
            rotate(row, cosines, sines, half, 1.0f);
            const size_t place = head_at(layer, head) + static_cast<size_t>(page) * page_numbers();
            const float* value = row + m.kv_heads * m.dimension;
            uint16_t* keys = b.keys + place + 2 * offset;
            uint16_t* values = b.values + place + static_cast<size_t>(offset / 2) * 2 * m.dimension + offset % 2;
            alignas(64) uint16_t numbers[2 * kLanes];
            for (int i = 0; i < m.dimension; i += 2 * kLanes) {
                narrow(numbers, load(row + i));
                narrow(numbers + kLanes, load(row + i + kLanes));
                for (int j = 0; j < kLanes; ++j) std::memcpy(keys + (i / 2 + j) * 2 * kPage, numbers + 2 * j, 4);
                narrow(numbers, load(value + i));
                narrow(numbers + kLanes, load(value + i + kLanes));
                for (int j = 0; j < 2 * kLanes; ++j) values[2 * (i + j)] = numbers[j];
            }
        }
    }

    void look(int layer, int rank) {
        const int count = static_cast<int>(r.jobs.size());
        for (int i = r.next_job.fetch_add(1); i < count; i = r.next_job.fetch_add(1)) attend_to(r.jobs[i], layer, rank);
    }
    void attend_to(const Job& job, int layer, int rank) {
        const Span& span = b.spans[job.span];
        const size_t head = head_at(layer, job.kv_head);
        const Heads heads{b.keys + head, b.values + head, b.pages + span.pages, m.dimension};
        const size_t at = (static_cast<size_t>(job.kv_head) * b.token_count + span.start) * group + job.first;
        Queries queries{r.queries.data() + at * m.dimension, job.count, {}, 0};
        for (int q = 0; q < job.count; ++q) {
            queries.seen[q] = span.position + (job.first + q) / group + 1;
            queries.most = std::max(queries.most, queries.seen[q]);
        }
        AttentionRoom& room = *r.attention[rank];
#ifdef DSLM_AMX
        if (has_tiles) use_half_tiles(job.count);
#endif
        attend(heads, queries, room, has_tiles);
        for (int q = 0; q < job.count; ++q) {
            const int token = span.start + (job.first + q) / group, one = job.kv_head * group + (job.first + q) % group;
            set(r.seen_in, token, one * m.dimension, m.dimension, room.out.data() + static_cast<size_t>(q) * m.dimension);
        }
    }

    const Model& m;
    const Batch& b;
    Team& team;
    Room& r;
    const bool has_tiles;
    const int group, width, longest;
    Lowrank adapted;
    const int together;          // pairs of 32 gates and 32 ups; more with adapters, whose B is read in longer pieces so
};

struct Worker {
    Worker(int threads, bool may_use_tiles) : team(threads), has_tiles(may_use_tiles && tiles_allowed()) {}
    Team team;
    Room room;
    const bool has_tiles;
};

}  // namespace
}  // namespace dslm

extern "C" {
int dslm_version() { return dslm::kVersion; }
void* dslm_open(int threads, int may_use_tiles) { return new dslm::Worker(threads, may_use_tiles != 0); }
void dslm_close(void* worker) { delete static_cast<dslm::Worker*>(worker); }
int dslm_is_wide() { return dslm::kIsWide; }
int dslm_has_tiles(void* worker) { return static_cast<dslm::Worker*>(worker)->has_tiles; }
void dslm_step(void* worker, const dslm::Model* model, const dslm::Batch* batch) {
    auto& mine = *static_cast<dslm::Worker*>(worker);
    dslm::Step step(*model, *batch, mine.team, mine.room, mine.has_tiles);
    auto work = [&](int rank) { step.run(rank); };
    mine.team.run(work);
}
}
