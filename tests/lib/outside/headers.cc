/* SPDX-License-Identifier: Apache-2.0 */
/* The public headers in a program in C++, outside of the tree: for test_install.py. */
#include <ramet/ramet.h>
#include <ramet/vm.h>
#include <ramet/process.h>
#include <ramet/harness.h>
#include <ramet/fuzz.h>
#include <ramet/fork_abi.h>

#include <cstdio>
#include <cstring>

int main()
{
        ramet_vm_config config{};
        ramet_vm_options options{};
        ramet_fuzz_options fuzz{};
        ramet_vm_event event{};
        ramet_ctx *ctx = nullptr;
        ramet_vm *vm = nullptr;

        config.size = sizeof config;
        config.limits.run_ns = RAMET_SECOND;
        config.cow = RAMET_COW_TRAP;
        options.size = sizeof options;
        fuzz.size = sizeof fuzz;
        fuzz.guest = nullptr;
        event.exit.reason = RAMET_EXIT_LIMIT;
        if (ramet_ctx_create(&ctx) != 0 || ramet_abi() != RAMET_ABI)
                return 1;
        /* no kernel, said in words */
        if (ramet_vm_create(ctx, &config, &vm) >= 0 || std::strlen(ramet_last_error(ctx)) == 0)
                return 1;
        std::printf("%d: %s\n", event.exit.reason, ramet_last_error(ctx));
        ramet_ctx_destroy(ctx);
        return 0;
}
