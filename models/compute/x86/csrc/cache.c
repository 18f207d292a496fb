/* The cache between passes. */

#include "kernels.h"

void keep_entries(char *kv, Size heads, Size head_stride, Size line, const Size *table, Size start,
                  const Size *nodes, Size count) {
    for (Size i = 0; i < count; i++) {
        if (nodes[i] == i) continue;
        char *to = kv + place(table, start + i) * line;
        const char *from = kv + place(table, start + nodes[i]) * line;
        for (Size head = 0; head < heads; head++)
            memcpy(to + head * head_stride, from + head * head_stride, line);
    }
}
