// Compiled once for each instruction set: THR_VL floats a vector, THR_KERNELS the name of the table.
#include "bitmask.h"
#include "conv.h"
#include "layers.h"

namespace thr {

const Kernels *THR_KERNELS() {
    static const Kernels table = {conv, bitmask, point, norm, attention, pool, phase};
    return &table;
}

}  // namespace thr
