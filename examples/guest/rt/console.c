// SPDX-License-Identifier: Apache-2.0
/* The serial port (16550, polled) and a printf for it. A line of up to 256 bytes comes out whole.
 */
#include "rt/rt.h"

#define LSR      (LAYOUT_PORT_SERIAL + 5)
#define LSR_DATA 0x01
#define LSR_THRE 0x20

static unsigned lock;

void serial_write(const char *s, size_t len)
{
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
                cpu_relax();
        for (size_t i = 0; i < len; i++) {
                while (!(inb(LSR) & LSR_THRE))
                        cpu_relax();
                outb(LAYOUT_PORT_SERIAL, (uint8_t)s[i]);
        }
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

int getc_nowait(void)
{
        if (in_user())
                return (int)syscall(SYS_GETC, 0, 0);
        return inb(LSR) & LSR_DATA ? inb(LAYOUT_PORT_SERIAL) : -1;
}

struct out {
        char text[256];
        size_t len;
};

static void put(struct out *o, char c)
{
        if (o->len < sizeof o->text)
                o->text[o->len++] = c;
}

static void put_number(struct out *o, uint64_t v, unsigned base, int width, char pad)
{
        char digits[20];
        int n = 0;

        do {
                digits[n++] = "0123456789abcdef"[v % base];
                v /= base;
        } while (v);
        for (; width > n; width--)
                put(o, pad);
        while (n)
                put(o, digits[--n]);
}

static void format(struct out *o, const char *fmt, va_list ap)
{
        for (; *fmt; fmt++) {
                char pad = ' ';
                int width = 0, wide = 0;
                int64_t d;

                if (*fmt != '%') {
                        put(o, *fmt);
                        continue;
                }
                if (*++fmt == '0')
                        pad = '0';
                for (; *fmt >= '0' && *fmt <= '9'; fmt++)
                        width = 10 * width + *fmt - '0';
                for (; *fmt == 'l'; fmt++)
                        wide = 1;
                switch (*fmt) {
                case 'c':
                        put(o, (char)va_arg(ap, int));
                        break;
                case 's':
                        for (const char *s = va_arg(ap, const char *); *s; s++)
                                put(o, *s);
                        break;
                case 'd':
                        d = wide ? va_arg(ap, long) : va_arg(ap, int);
                        if (d < 0)
                                put(o, '-');
                        put_number(o, d < 0 ? -(uint64_t)d : (uint64_t)d, 10, width, pad);
                        break;
                case 'u':
                        put_number(o, wide ? va_arg(ap, unsigned long) : va_arg(ap, unsigned), 10,
                                   width, pad);
                        break;
                case 'x':
                        put_number(o, wide ? va_arg(ap, unsigned long) : va_arg(ap, unsigned), 16,
                                   width, pad);
                        break;
                default:
                        put(o, *fmt);
                        break;
                }
        }
}

void printf(const char *fmt, ...)
{
        struct out o;
        va_list ap;

        o.len = 0;
        va_start(ap, fmt);
        format(&o, fmt, ap);
        va_end(ap);
        if (in_user())
                syscall(SYS_WRITE, (uint64_t)o.text, o.len);
        else
                serial_write(o.text, o.len);
}
