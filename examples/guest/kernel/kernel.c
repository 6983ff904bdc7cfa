// SPDX-License-Identifier: Apache-2.0
/*
 * The command line of the small kernel, and its run queue. A line is a command and its words:
 *
 *      calc EXPRESSION              "= 14", or "error: ..."
 *      write NAME TEXT, append NAME TEXT, rename NAME TO, remove NAME, cat NAME, ls
 *      alloc BYTES, free BLOCK, fill, heap
 *      task PRIORITY NAME, run      queues a task; runs them all, the most urgent (0) first
 *      uptime, hang, trap, crash, off, reset
 */
#include "kernel.h"

#define TASKS   16
#define TICK_MS 10

static struct task {
        unsigned priority;
        char name[16];
} tasks[TASKS];
static unsigned ntasks;

volatile uint64_t uptime_ms; /* looked after while nothing else is to do */

void panic(const char *what, uint64_t where)
{
        printf("panic: %s (%lx)\n", what, where);
        guest_exit(EXIT_PANIC);
}

/* --- run queue: sorted, tasks of one priority in the order in which they came --- */

static const char *task_add(unsigned priority, const char *name)
{
        unsigned at = ntasks;

        if (ntasks == TASKS)
                return "too many tasks";
        if (length(name) >= sizeof tasks[0].name)
                return "name too long";
        for (; at > 0 && tasks[at - 1].priority > priority; at--)
                tasks[at] = tasks[at - 1];
        tasks[at].priority = priority;
        memcpy(tasks[at].name, name, length(name) + 1);
        ntasks++;
        return NULL;
}

static void tasks_run(void)
{
        for (unsigned i = 0; i < ntasks; i++)
                printf("%s ", tasks[i].name);
        printf("idle\n");
        ntasks = 0;
}

/* --- command line --- */

static const char *heap_command(const char *command, uint64_t number)
{
        uint64_t blocks = 0;
        void *block;

        if (same(command, "alloc")) {
                block = heap_alloc(number);
                if (!block)
                        return "no memory";
                printf("block %lu\n", (uint64_t)block - (uint64_t)heap);
        } else if (same(command, "free")) {
                heap_free(heap + number);
                printf("freed\n");
        } else if (same(command, "fill")) {
                while (heap_alloc(1000))
                        blocks++;
                printf("%lu blocks\n", blocks);
        } else {
                printf("%lu bytes used, %u free blocks\n", heap_used, heap_free_blocks());
        }
        return NULL;
}

static void hang(void)
{
        for (;;)
                asm volatile("cli; pause");
}

/* No interrupt table, then an exception: a triple fault. */
static void crash(void)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) none = {0, 0};

        asm volatile("lidt %0; ud2" : : "m"(none));
}

static char *word(char **line) /* cuts it off, blanks and all */
{
        char *begin = *line;

        while (**line && **line != ' ')
                (*line)++;
        if (**line)
                *(*line)++ = '\0';
        return begin;
}

static uint64_t number_of(const char *s)
{
        uint64_t n = 0;

        while (*s >= '0' && *s <= '9')
                n = 10 * n + (uint64_t)(*s++ - '0');
        return n;
}

static const char *obey(const char *command, char *line)
{
        const char *wrong;
        int64_t result;
        char *name;

        if (same(command, "alloc") || same(command, "free") || same(command, "fill") ||
            same(command, "heap"))
                return heap_command(command, number_of(line));
        if (same(command, "calc")) {
                wrong = calc(line, &result);
                if (!wrong)
                        printf("= %ld\n", result);
                return wrong;
        }
        if (same(command, "ls"))
                return file_list(), NULL;
        if (same(command, "run"))
                return tasks_run(), NULL;
        if (same(command, "uptime"))
                return printf("up %lu ms\n", uptime_ms), NULL;
        if (same(command, "hang"))
                hang();
        if (same(command, "trap"))
                asm volatile("ud2");
        if (same(command, "crash"))
                crash();
        if (same(command, "off"))
                guest_poweroff();
        if (same(command, "reset"))
                outb(0x64, 0xfe); /* the keyboard controller's reset line */
        name = word(&line);
        if (same(command, "write"))
                return file_write(name, line);
        if (same(command, "append"))
                return file_append(name, line);
        if (same(command, "rename"))
                return file_rename(name, line);
        if (same(command, "remove"))
                return file_remove(name);
        if (same(command, "cat"))
                return file_print(name);
        if (same(command, "task"))
                return task_add((unsigned)number_of(name), line);
        return "no such command";
}

static void idle(void)
{
        static uint64_t ticks; /* of the timer that are in uptime_ms */

        asm volatile("sti; nop; cli");
        uptime_ms += TICK_MS * (this_cpu()->timer - ticks);
        ticks = this_cpu()->timer;
}

static void read_line(char *line, size_t size)
{
        size_t len = 0;
        int c;

        while ((c = getc_nowait()) != '\n') {
                if (c >= 0 && len + 1 < size)
                        line[len++] = (char)c;
                idle();
        }
        line[len] = '\0';
}

void guest_main(void)
{
        char line[200], *rest;
        const char *command, *wrong;

        heap_init();
        timer_periodic(TICK_MS);
        printf("kernel: ready\n");
        for (;;) {
                printf("> ");
                read_line(line, sizeof line);
                rest = line;
                command = word(&rest);
                wrong = obey(command, rest);
                if (wrong)
                        printf("error: %s\n", wrong);
        }
}
