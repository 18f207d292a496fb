/* The cache between passes. */

#include "kernels.h"

void keep_entries(char *kv, Size parts, Size part_stride, Size heads, Size head_stride, Size line,
                  const Size *nodes, Size count) {
    for (Size part = 0; part < parts; part++)
        for (Size head = 0; head < heads; head++) {
            char *entries = kv + part * part_stride + head * head_stride;
            for (Size i = 0; i < count; i++)
                if (nodes[i] != i) memcpy(entries + i * line, entries + nodes[i] * line, line);
        }
}
