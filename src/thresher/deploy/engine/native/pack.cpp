// Packs weights: nonzeros in order of input-channel block, output row, column; offsets for the layout of the input.
#include <algorithm>
#include <unordered_map>
#include "program.h"

namespace thr {

namespace {

// CONV ints: x, y, residual, activation, rows, channels a group, groups, taps, planes a channel,
//            then plane, dy, dx of each tap.
struct Columns {
    int rows, channels, groups, taps, multiple;
    std::vector<int32_t> offset;  // bytes, of tap t of channel 0

    Columns(const Program &p, const Op &op) {
        const Tensor &x = p.tensors[op.ints[0]];
        rows = static_cast<int>(op.ints[4]);
        channels = static_cast<int>(op.ints[5]);
        groups = static_cast<int>(op.ints[6]);
        taps = static_cast<int>(op.ints[7]);
        multiple = static_cast<int>(op.ints[8]);
        for (int t = 0; t < taps; ++t) {
            const int64_t *tap = &op.ints[9 + 3 * t];
            offset.push_back(static_cast<int32_t>(4 * (tap[0] * x.plane + tap[1] * x.row + tap[2] * p.lanes)));
        }
        step = 4 * multiple * x.plane;
    }
    int64_t step;
    int64_t count() const { return static_cast<int64_t>(channels) * taps; }
    int first_channel(int row) const { return row / (rows / groups) * channels; }
    int32_t at(int row, int channel, int tap) const {
        return static_cast<int32_t>((first_channel(row) + channel) * step + offset[tap]);
    }
};

// Values and 16-bit offsets apart, 6 bytes a nonzero in place of 8, if every block of input channels spans few enough floats.
void shorten(const Columns &k, Op &op, int block) {
    if (k.groups > 1 || op.entries.empty()) return;
    const auto [low, high] = std::minmax_element(k.offset.begin(), k.offset.end());
    if ((block - 1) * k.step + *high - *low >= int64_t{4} << 16) return;
    for (int b = 0; b < op.blocks; ++b) op.bases.push_back(static_cast<int32_t>(b * block * k.step + *low));
    op.shorts.reserve(op.entries.size());
    op.values.reserve(op.entries.size());
    for (int b = 0; b < op.blocks; ++b) {
        const uint32_t *starts = &op.starts[static_cast<int64_t>(b) * (k.rows + 1)];
        for (uint32_t i = starts[0]; i < starts[k.rows]; ++i) {
            op.shorts.push_back(static_cast<uint16_t>((op.entries[i].offset - op.bases[b]) / 4));
            op.values.push_back(op.entries[i].value);
        }
    }
    op.entries = {};
}

void pack_sparse(const Columns &k, Op &op, const float *weight, int block) {
    int64_t total = 0;
    for (int64_t i = 0; i < k.rows * k.count(); ++i) total += weight[i] != 0.0f;
    op.entries.reserve(total);
    for (int b = 0; b < op.blocks; ++b) {
        const int first = b * block, last = first + block < k.channels ? first + block : k.channels;
        op.starts.push_back(static_cast<uint32_t>(op.entries.size()));
        for (int row = 0; row < k.rows; ++row) {
            const float *w = weight + row * k.count();
            for (int c = first; c < last; ++c)
                for (int t = 0; t < k.taps; ++t) {
                    const float value = w[static_cast<int64_t>(c) * k.taps + t];
                    if (value != 0.0f) op.entries.push_back({value, k.at(row, c, t)});  // NaN is kept, too
                }
            op.starts.push_back(static_cast<uint32_t>(op.entries.size()));
            op.load[row + 1] += op.starts.back() - op.starts[op.starts.size() - 2] + 2;
        }
    }
    for (int row = 0; row < k.rows; ++row) op.load[row + 1] += op.load[row];
    shorten(k, op, block);
}

void pack_block(const Columns &k, Op &op, const float *weight, int block) {
    const int quads = (k.rows + 3) / 4;
    for (int b = 0; b < op.blocks; ++b) {
        const int first = b * block, last = first + block < k.channels ? first + block : k.channels;
        op.starts.push_back(static_cast<uint32_t>(op.offsets.size()));
        for (int quad = 0; quad < quads; ++quad) {
            for (int64_t column = static_cast<int64_t>(first) * k.taps; column < static_cast<int64_t>(last) * k.taps; ++column) {
                float four[4] = {};
                bool any = false;
                for (int r = 0; r < 4 && 4 * quad + r < k.rows; ++r) {
                    four[r] = weight[(4 * quad + r) * k.count() + column];
                    any = any || four[r] != 0.0f;
                }
                if (!any) continue;
                op.offsets.push_back(k.at(4 * quad, static_cast<int>(column / k.taps), static_cast<int>(column % k.taps)));
                op.values.insert(op.values.end(), four, four + 4);
            }
            op.starts.push_back(static_cast<uint32_t>(op.offsets.size()));
            op.load[quad + 1] += op.starts.back() - op.starts[op.starts.size() - 2] + 2;
        }
    }
    for (int quad = 0; quad < quads; ++quad) op.load[quad + 1] += op.load[quad];
}

}  // namespace

bool pack(Program &p, Op &op, const float *weight, int channel_block) {
    op.packed.reset();
    if (op.kernel == BITMASK) {
        op.entries = {};
        op.shorts = {};
        op.bases = {};
        op.offsets = {};
        op.values = {};
        op.starts = {};
        return pack_masks(op, weight);
    }
    const Columns k(p, op);
    const int block = channel_block > 0 && channel_block < k.channels ? channel_block : k.channels;
    op.blocks = k.channels ? (k.channels + block - 1) / block : 1;
    op.columns = k.count();
    op.entries.clear();
    op.shorts = {};
    op.bases.clear();
    op.offsets.clear();
    op.values.clear();
    op.starts.clear();
    op.load.assign((op.kernel == SPARSE ? k.rows : (k.rows + 3) / 4) + 1, 0);
    if (op.kernel == SPARSE) pack_sparse(k, op, weight, block);
    else pack_block(k, op, weight, block);
    op.entries.shrink_to_fit();
    op.offsets.shrink_to_fit();
    op.values.shrink_to_fit();
    return true;
}

int64_t unpack(const Program &p, const Op &op, float *weight) {
    if (op.kernel == BITMASK) return unpack_masks(op, weight);
    const Columns k(p, op);
    if (weight) {
        for (int64_t i = 0; i < k.rows * k.count(); ++i) weight[i] = 0.0f;
        const bool sparse = op.kernel == SPARSE;
        const int units = sparse ? k.rows : (k.rows + 3) / 4;
        std::unordered_map<int32_t, int64_t> column;
        int mapped = -1;
        for (int unit = 0; unit < units; ++unit) {
            const int row = sparse ? unit : 4 * unit;
            if (k.first_channel(row) != mapped) {
                mapped = k.first_channel(row);
                column.clear();
                for (int c = 0; c < k.channels; ++c)
                    for (int t = 0; t < k.taps; ++t) column[k.at(row, c, t)] = static_cast<int64_t>(c) * k.taps + t;
            }
            for (int b = 0; b < op.blocks; ++b) {
                const uint32_t *starts = &op.starts[static_cast<int64_t>(b) * (units + 1)];
                for (uint32_t i = starts[unit]; i < starts[unit + 1]; ++i) {
                    if (sparse && !op.shorts.empty())
                        weight[unit * k.count() + column[op.bases[b] + 4 * op.shorts[i]]] = op.values[i];
                    else if (sparse) weight[unit * k.count() + column[op.entries[i].offset]] = op.entries[i].value;
                    else
                        for (int r = 0; r < 4 && 4 * unit + r < k.rows; ++r)
                            weight[(4 * unit + r) * k.count() + column[op.offsets[i]]] = op.values[4 * static_cast<int64_t>(i) + r];
                }
            }
        }
    }
    return static_cast<int64_t>(op.entries.size() * sizeof(Entry) + op.shorts.size() * 2 + op.offsets.size() * 4 +
                                op.values.size() * 4 + (op.bases.size() + op.starts.size()) * 4);
}

}  // namespace thr
