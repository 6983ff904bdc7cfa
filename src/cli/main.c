/* SPDX-License-Identifier: Apache-2.0 */
/* The ramet command. */
int main(void)
{
        return 0;
}
