// SPDX-License-Identifier: Apache-2.0
/* Whole numbers, + - * / %, parentheses: one function for each level of precedence. */
#include "kernel.h"

#define DEPTH_MAX 32

struct calc {
        const char *at;
        const char *wrong; /* the first thing that is; the values do not matter then */
        unsigned depth;
};

static int64_t sum(struct calc *c);

static int take(struct calc *c, char what)
{
        while (*c->at == ' ')
                c->at++;
        if (*c->at != what)
                return 0;
        c->at++;
        return 1;
}

static int64_t fail(struct calc *c, const char *wrong)
{
        if (!c->wrong)
                c->wrong = wrong;
        return 1; /* nobody divides by 0 because of it */
}

static int64_t factor(struct calc *c)
{
        uint64_t value = 0;

        if (c->depth == DEPTH_MAX)
                return fail(c, "too deep");
        if (take(c, '-')) {
                c->depth++;
                value = -(uint64_t)factor(c);
                c->depth--;
        } else if (take(c, '(')) {
                c->depth++;
                value = (uint64_t)sum(c);
                c->depth--;
                if (!take(c, ')'))
                        return fail(c, "expected )");
        } else {
                if (*c->at < '0' || *c->at > '9')
                        return fail(c, "expected a number");
                for (; *c->at >= '0' && *c->at <= '9'; c->at++)
                        value = 10 * value + (uint64_t)(*c->at - '0');
        }
        return (int64_t)value;
}

static int64_t product(struct calc *c)
{
        int64_t value = factor(c);

        for (;;) {
                char op = take(c, '*') ? '*' : take(c, '/') ? '/' : take(c, '%') ? '%' : 0;
                int64_t by;

                if (!op)
                        return value;
                by = factor(c);
                if (op == '*')
                        value = (int64_t)((uint64_t)value * (uint64_t)by);
                else if (by == 0 || by == -1)
                        value = by ? op == '/' ? (int64_t)(0 - (uint64_t)value) : 0
                                   : fail(c, "division by zero");
                else
                        value = op == '/' ? value / by : value % by;
        }
}

static int64_t sum(struct calc *c)
{
        uint64_t value = (uint64_t)product(c);

        for (;;) {
                if (take(c, '+'))
                        value += (uint64_t)product(c);
                else if (take(c, '-'))
                        value -= (uint64_t)product(c);
                else
                        return (int64_t)value;
        }
}

const char *calc(const char *expression, int64_t *result)
{
        struct calc c = {.at = expression};

        *result = sum(&c);
        if (!c.wrong && !take(&c, '\0'))
                c.wrong = "expected an operator";
        return c.wrong;
}
