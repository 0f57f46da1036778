/* tests/fuzz/opt.c: libFuzzer entry for the option codec. First byte: TCP flags, the rest: options.
 *   clang -std=c17 -g -fsanitize=fuzzer,address,undefined -Ilibmpshim -Itests/unit tests/fuzz/opt.c \
 *       libmpshim/core/opt.c -o build/fuzz-opt && build/fuzz-opt -max_len=41 -max_total_time=60 */
#include <stdio.h>

#include "opt_property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *broken = n ? opt_property(data + 1, n - 1, data[0]) : NULL;

    if (broken) {
        fprintf(stderr, "%s\n", broken);
        abort();
    }
    return 0;
}
