// SPDX-License-Identifier: Apache-2.0
/*
 * What tests of the harness boot: prints "subject: ready", rings, and does what `order` says (see
 * subject.h), which a case sets by its symbol. Then it serves lines on the serial port:
 *
 *      exit N      debug exit           off       power off
 *      ring N      ring with N, then print "answer R"
 *      other       print "you said: other"
 *
 * With never=ready it prints a few lines and halts before it is ready, with dies=early it crashes.
 */
#include "rt/rt.h"

#include "subject.h"

#define NOINLINE __attribute__((noinline, noclone))

volatile uint32_t order;    /* enum subject_order */
volatile uint64_t argument; /* of it */
volatile uint32_t visits;   /* that of this machine: 1, or something is shared */
char message[256];          /* for SUBJECT_PRINT */
uint8_t area[SUBJECT_PAGES][4096] __attribute__((aligned(4096)));

static volatile uint64_t sink;

static void no_traps(void)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) none = {0, 0};

        asm volatile("lidt %0" : : "m"(none));
}

/* Frames to be found again: guest_main, obey, parse_message, parse_header. */
static NOINLINE void parse_header(uint64_t address)
{
        *(volatile uint64_t *)address = 1;
        sink++;
}

static NOINLINE void parse_message(uint64_t address)
{
        parse_header(address);
        sink++;
}

static NOINLINE void call_nowhere(uint64_t address)
{
        ((void (*)(void))address)();
        sink++;
}

static uint64_t spin(void *arg)
{
        for (;;)
                sink++;
        return 0;
}

static NOINLINE void user_parse(uint64_t address)
{
        *(volatile uint64_t *)address = 2; /* other code, so that they stay two functions */
        sink++;
}

static uint64_t user_work(void *arg)
{
        user_parse((uint64_t)arg);
        return 0;
}

static NOINLINE void obey(void)
{
        switch (order) {
        case SUBJECT_FAULT:
                no_traps();
                parse_message(argument);
                break;
        case SUBJECT_TRIPLE:
                no_traps();
                asm volatile("ud2");
                break;
        case SUBJECT_CALL:
                no_traps();
                call_nowhere(argument);
                break;
        case SUBJECT_USER_FAULT:
                no_traps();
                run_user(user_work, (void *)argument);
                break;
        case SUBJECT_SPIN:
                run_user(spin, NULL);
                break;
        case SUBJECT_WRITE:
                for (uint64_t i = 0; i < argument && i < SUBJECT_PAGES; i++)
                        area[i][0]++;
                printf("first byte %u, visit %u\n", area[0][0], visits);
                break;
        case SUBJECT_PORT:
                inb((uint16_t)argument);
                break;
        case SUBJECT_PRINT:
                for (unsigned i = 0; i < argument && i < sizeof message; i++)
                        serial_write(&message[i], 1);
                break;
        }
        sink++;
}

/* --- lines --- */

static void read_line(char *line, size_t size)
{
        size_t len = 0;
        int c;

        while ((c = getc_nowait()) != '\n')
                if (c >= 0 && len + 1 < size)
                        line[len++] = (char)c;
        line[len] = '\0';
}

static int begins(const char **line, const char *word)
{
        const char *p = *line;

        while (*word)
                if (*p++ != *word++)
                        return 0;
        *line = p;
        return 1;
}

static uint32_t number(const char *s)
{
        uint32_t n = 0;

        for (; *s >= '0' && *s <= '9'; s++)
                n = 10 * n + (uint32_t)(*s - '0');
        return n;
}

static void serve(const char *line)
{
        if (begins(&line, "exit ")) {
                guest_exit(number(line));
        } else if (begins(&line, "off")) {
                guest_poweroff();
        } else if (begins(&line, "ring ")) {
                mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, number(line));
                printf("answer %u\n", mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RESULT));
        } else {
                printf("you said: %s\n", line);
        }
}

void guest_main(void)
{
        char line[128];

        printf("subject: booting\n");
        if (cmd_is("dies", "early")) {
                no_traps();
                asm volatile("ud2");
        }
        if (cmd_is("never", "ready")) {
                printf("subject: no root\tdevice\n");
                halt();
        }
        printf("subject: ready\n");
        mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, 1);
        visits++;
        obey();
        for (;;) {
                read_line(line, sizeof line);
                serve(line);
        }
}
