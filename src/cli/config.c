/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --config FILE: a JSON object whose keys are names of options without their dashes.
 *
 *      {"kernel": "vmlinux", "cpus": 2, "memory": "256M", "timeout": 2.5}
 *
 * A value may have the types that the option's row allows; numbers, and objects of keys, are turned
 * into the text that one would have typed, so that both ways share one parser and its messages.
 * What nobody knows is an error that names it: a misspelt key must not pass in silence.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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
        if (json & OPTION_JSON_LIST)
                return "an array";
        if (json & OPTION_JSON_BOOLEAN)
                return "true or false";
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

/* An element of a list, as one would type it: an object is its keys and values. The text is the
 * caller's to free; NULL with @err set. */
static char *element_text(const json_t *value, struct err *err)
{
        const char *key, *comma = "";
        char *text = NULL;
        json_t *member;
        size_t size;
        FILE *mem;

        if (json_is_string(value))
                return strdup(json_string_value(value));
        if (!json_is_object(value)) {
                err_input(err, "expected strings or objects in it, got %s", type_name(value));
                return NULL;
        }
        mem = open_memstream(&text, &size);
        json_object_foreach((json_t *)value, key, member)
        {
                fprintf(mem, "%s%s=", comma, key);
                comma = ",";
                if (json_is_boolean(member))
                        fputs(json_is_true(member) ? "on" : "off", mem);
                else if (json_is_integer(member))
                        fprintf(mem, "%" JSON_INTEGER_FORMAT, json_integer_value(member));
                else
                        for (const char *p = json_string_value(member); p && *p; p++)
                                fprintf(mem, *p == ',' ? ",," : "%c", *p);
        }
        fclose(mem);
        return text;
}

static int apply_list(const struct option_row *row, struct options *to, const json_t *list,
                      struct err *err)
{
        const json_t *value;
        size_t i;

        json_array_foreach(list, i, value)
        {
                char *text = element_text(value, err);
                int ret = text ? row->parse(row, (char *)to + row->offset, text, err) : -EINVAL;

                if (ret && text)
                        err_prefix(err, ret, "%s", text);
                free(text);
                if (ret)
                        return -EINVAL;
        }
        return 0;
}

/* One without an argument: true is as if it had been given. */
static int apply_boolean(const struct option_row *row, struct options *to, const json_t *value,
                         struct err *err)
{
        return json_is_true(value) ? row->parse(row, (char *)to + row->offset, "", err) : 0;
}

static int apply_value(const struct option_row *row, struct options *to, const json_t *value,
                       struct err *err)
{
        char number[64];
        const char *text;

        if (row->json & OPTION_JSON_LIST && json_is_array(value))
                return apply_list(row, to, value, err);
        if (row->json & OPTION_JSON_BOOLEAN && json_is_boolean(value))
                return apply_boolean(row, to, value, err);
        if (!value_text(value, row->json, number, &text))
                return err_input(err, "expected %s, got %s", wanted(row->json), type_name(value));
        if (row->parse(row, (char *)to + row->offset, text, err))
                return err_prefix(err, -EINVAL, "%s", text);
        return 0;
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
        int ret;

        if (i == option_count)
                return err_input(err, "no such option");
        ret = apply_value(row, to, value, err);
        disk_list_fini(&ignored.disks);
        if (!ret)
                o->given |= 1ull << i;
        return ret;
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
