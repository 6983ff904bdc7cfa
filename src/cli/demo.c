/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
int cmd_demo(int argc, char **argv)
{
        return 0;
}
