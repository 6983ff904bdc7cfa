/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --config FILE: a JSON object whose keys are names of options without their dashes.
 *
 *      {"kernel": "vmlinux", "cpus": 2, "memory": "256M", "timeout": 2.5}
 *
 * A value may have the types that the option's row allows; numbers are turned into the text that
 * one would have typed, so that both ways share one parser and its messages. What nobody knows is
 * an error that names it: a misspelt key must not pass in silence.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/options.h"

#define CONFIG_BYTES_MAX (1 << 20)

static const char *type_name(const json_t *value)
{
        switch (json_typeof(value)) {
        case JSON_OBJECT:
                return "an object";
        case JSON_ARRAY:
                return "an array";
        case JSON_STRING:
                return "a string";
        case JSON_INTEGER:
                return "an integer";
        case JSON_REAL:
                return "a number with a fraction";
        case JSON_TRUE:
        case JSON_FALSE:
                return "a boolean";
        case JSON_NULL:
                break;
        }
        return "null";
}

static const char *wanted(unsigned json)
{
        if (json & OPTION_JSON_NUMBER)
                return "a number";
        if (json == OPTION_JSON_INTEGER)
                return "an integer";
        if (json == OPTION_JSON_STRING)
                return "a string";
        return "a string or an integer";
}

/* @value as text in *@text, which is @number or belongs to @value. False: its type is not allowed.
 */
static bool value_text(const json_t *value, unsigned json, char number[64], const char **text)
{
        *text = number;
        if (json_is_string(value) && json & OPTION_JSON_STRING)
                *text = json_string_value(value);
        else if (json_is_integer(value) && json & (OPTION_JSON_INTEGER | OPTION_JSON_NUMBER))
                snprintf(number, 64, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        else if (json_is_real(value) && json & OPTION_JSON_NUMBER)
                snprintf(number, 64, "%.9f", json_real_value(value));
        else
                return false;
        return true;
}

static unsigned find_row(enum command_bit command, const char *key)
{
        for (unsigned i = 0; i < option_count; i++)
                if (option_table[i].json && option_table[i].commands & command &&
                    !strcmp(option_table[i].name, key))
                        return i;
        return option_count;
}

static int apply_key(struct options *o, enum command_bit command, const char *key,
                     const json_t *value, struct err *err)
{
        unsigned i = find_row(command, key);
        const struct option_row *row = &option_table[i];
        struct options ignored = {0};
        struct options *to = o->given >> i & 1 ? &ignored : o;
        char number[64];
        const char *text;

        if (i == option_count)
                return err_input(err, "no such option");
        if (!value_text(value, row->json, number, &text))
                return err_input(err, "expected %s, got %s", wanted(row->json), type_name(value));
        if (row->parse(row, (char *)to + row->offset, text, err))
                return err_prefix(err, -EINVAL, "%s", text);
        o->given |= 1ull << i;
        return 0;
}

int config_apply(struct options *o, enum command_bit command, json_t *root, const char *path,
                 struct err *err)
{
        const char *key;
        json_t *value;

        if (!json_is_object(root))
                return err_input(err, "%s: expected a JSON object, got %s", path, type_name(root));
        json_object_foreach(root, key, value) if (apply_key(o, command, key, value,
                                                            err)) return err_prefix(err, -EINVAL,
                                                                                    "%s: %s", path,
                                                                                    key);
        return 0;
}

int config_read(struct options *o, enum command_bit command, const char *path, struct err *err)
{
        char text[4096];
        json_error_t where;
        char *all = NULL;
        size_t len = 0, n;
        FILE *mem, *file = fopen(path, "re");

        if (!file)
                return err_input(err, "--config %s: %s", path, strerror(errno));
        mem = open_memstream(&all, &len);
        if (!mem) {
                fclose(file);
                return err_host(err, ENOMEM, "--config %s: no memory", path);
        }
        while (n = fread(text, 1, sizeof text, file), n > 0 && ftell(mem) <= CONFIG_BYTES_MAX)
                fwrite(text, 1, n, mem);
        n = (size_t)ferror(file);
        fclose(file);
        fclose(mem);
        o->config_json = n || len > CONFIG_BYTES_MAX
                                 ? NULL
                                 : json_loadb(all, len, JSON_REJECT_DUPLICATES, &where);
        free(all);
        if (n)
                return err_input(err, "--config %s: cannot be read (is it a directory?)", path);
        if (len > CONFIG_BYTES_MAX)
                return err_input(err, "--config %s: larger than 1 MiB", path);
        if (!o->config_json)
                return err_input(err, "%s:%d: not JSON: %s", path, where.line, where.text);
        return config_apply(o, command, o->config_json, path, err);
}
