/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PARSER_PARSER_H
#define PARSER_PARSER_H

#include <stdint.h>

/* A sum of what is in the packet; 0: it breaks the rules. */
uint32_t parse_packet(const uint8_t *packet, uint32_t length);

#endif
