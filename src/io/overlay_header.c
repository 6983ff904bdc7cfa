/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first 4 KiB of an overlay: writing them, and believing nothing of what is read. In this
 * version of the format every offset and size follows from the size of the disk, so the fields that
 * repeat them have one right value each; texts end within their fields, names have no '/' in them;
 * what is unused is zero; and the checksum covers all of it.
 */
#include "io/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "io/overlay_internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are written as they are");

/* FNV-1a by words of 64 bits. Each step is a bijection, so a change of one word never goes
 * unnoticed; it guards against accidents, and not against forgers. */
static uint64_t checksum(const struct overlay_header *h)
{
        const uint8_t *p = (const uint8_t *)h;
        uint64_t sum = 0xcbf29ce484222325u;

        for (size_t i = 0; i < sizeof *h; i += sizeof(uint64_t)) {
                uint64_t word;

                memcpy(&word, p + i, sizeof word);
                if (i == offsetof(struct overlay_header, checksum))
                        word = 0;
                sum = (sum ^ word) * 0x100000001b3u;
        }
        return sum;
}

static int write_header(int fd, const struct overlay_info *info, bool begun, struct err *err)
{
        uint64_t bitmap = overlay_bitmap_bytes(info->disk_bytes);
        struct overlay_header h = {
                .magic = OVERLAY_MAGIC,
                .version = OVERLAY_VERSION,
                .header_bytes = sizeof h,
                .disk_bytes = info->disk_bytes,
                .bitmap_offset = sizeof h,
                .bitmap_bytes = bitmap,
                .data_offset = sizeof h + bitmap,
                .image_bytes = info->image_bytes,
                .image_mtime_sec = info->image_mtime_sec,
                .image_mtime_nsec = info->image_mtime_nsec,
                .begun = begun,
        };
        ssize_t n;

        memcpy(h.id, &info->id, sizeof h.id);
        memcpy(h.parent, &info->parent, sizeof h.parent);
        memcpy(h.name, info->name, sizeof h.name);
        memcpy(h.parent_name, info->parent_name, sizeof h.parent_name);
        memcpy(h.image, info->image, sizeof h.image);
        h.checksum = checksum(&h);
        n = pwrite(fd, &h, sizeof h, 0);
        if (n == (ssize_t)sizeof h)
                return 0;
        return err_host(err, n < 0 ? errno : ENOSPC, "write the overlay %s: %s", info->name,
                        strerror(n < 0 ? errno : ENOSPC));
}

/* --- reading --- */

/* A text that ends inside its field, and nothing behind it. */
static bool is_text(const char *field, size_t size)
{
        size_t n = strnlen(field, size);

        if (n == size)
                return false;
        for (; n < size; n++)
                if (field[n])
                        return false;
        return true;
}

static bool is_name(const char *field)
{
        return is_text(field, OVERLAY_NAME_MAX) && !strchr(field, '/') && strcmp(field, ".") != 0 &&
               strcmp(field, "..") != 0;
}

static const char *fault(const struct overlay_header *h, uint64_t file_bytes)
{
        static const uint8_t zero[sizeof h->zero];
        uint64_t bitmap;

        if (h->version != OVERLAY_VERSION)
                return "made by another version";
        if (h->checksum != checksum(h))
                return "its header is damaged";
        if (h->header_bytes != sizeof *h || memcmp(h->zero, zero, sizeof zero) != 0)
                return "its header is not of this version";
        if (h->begun > 1 || !is_name(h->name) || !is_name(h->parent_name) ||
            !is_text(h->image, sizeof h->image) || h->image_mtime_nsec >= 1000000000u)
                return "its header makes no sense";
        if (!h->begun)
                return "nothing was written to it yet";
        if (overlay_is_image((const struct overlay_id *)h->id))
                return "it has no id";
        if (!h->disk_bytes || h->disk_bytes % OVERLAY_SECTOR || h->disk_bytes > OVERLAY_DISK_MAX)
                return "the size of its disk makes no sense";
        bitmap = overlay_bitmap_bytes(h->disk_bytes);
        if (h->bitmap_offset != sizeof *h || h->bitmap_bytes != bitmap ||
            h->data_offset != sizeof *h + bitmap)
                return "its parts are not where they should be";
        if (file_bytes != h->data_offset + h->disk_bytes)
                return file_bytes < h->data_offset + h->disk_bytes ? "it was cut short"
                                                                   : "it is too long";
        return NULL;
}

static int read_header(int fd, struct overlay_header *h, uint64_t *file_bytes, struct err *err)
{
        struct stat st;
        ssize_t n;

        if (fstat(fd, &st))
                return err_host(err, errno, "overlay: %s", strerror(errno));
        if (!S_ISREG(st.st_mode))
                return err_input(err, "not an overlay: not a regular file");
        n = pread(fd, h, sizeof *h, 0);
        if (n < 0)
                return err_host(err, errno, "read an overlay: %s", strerror(errno));
        if (n < (ssize_t)sizeof *h || memcmp(h->magic, OVERLAY_MAGIC, sizeof h->magic) != 0)
                return err_input(err, "not an overlay");
        *file_bytes = (uint64_t)st.st_size;
        return 0;
}

int overlay_read_info(int fd, struct overlay_info *info, struct err *err)
{
        struct overlay_header h;
        uint64_t file_bytes;
        const char *why;
        int ret = read_header(fd, &h, &file_bytes, err);

        if (ret)
                return ret;
        why = fault(&h, file_bytes);
        if (why)
                return err_input(err, "an overlay that cannot be used: %s", why);
        *info = (struct overlay_info){
                .disk_bytes = h.disk_bytes,
                .image_bytes = h.image_bytes,
                .image_mtime_sec = h.image_mtime_sec,
                .image_mtime_nsec = h.image_mtime_nsec,
        };
        memcpy(&info->id, h.id, sizeof h.id);
        memcpy(&info->parent, h.parent, sizeof h.parent);
        memcpy(info->name, h.name, sizeof h.name);
        memcpy(info->parent_name, h.parent_name, sizeof h.parent_name);
        memcpy(info->image, h.image, sizeof h.image);
        return 0;
}

/* --- writing --- */

int overlay_create_file(const char *path, int *fd, int *ro_fd, struct err *err)
{
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
        struct overlay_info info = {0};
        int rw, ro, ret;

        if (!*name || strlen(name) >= sizeof info.name)
                return err_host(err, ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
        memcpy(info.name, name, strlen(name));
        rw = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (rw < 0)
                return err_host(err, errno, "%s: %s", path, strerror(errno));
        ro = open(path, O_RDONLY | O_CLOEXEC);
        ret = ro < 0 ? err_host(err, errno, "%s: %s", path, strerror(errno))
                     : write_header(rw, &info, false, err);
        if (ret) {
                close(rw);
                if (ro >= 0)
                        close(ro);
                unlink(path);
                return ret;
        }
        *fd = rw;
        *ro_fd = ro;
        return 0;
}

/* Empty, or a header that knows its name; @name is that, or "". */
static int check_fresh(int fd, char name[OVERLAY_NAME_MAX], struct err *err)
{
        struct overlay_header h;
        uint64_t bytes;
        struct stat st;

        if (fstat(fd, &st))
                return err_host(err, errno, "overlay: %s", strerror(errno));
        if (S_ISREG(st.st_mode) && !st.st_size) {
                memset(name, 0, OVERLAY_NAME_MAX);
                return 0;
        }
        if (!read_header(fd, &h, &bytes, NULL) && bytes == sizeof h && h.checksum == checksum(&h) &&
            h.version == OVERLAY_VERSION && !h.begun && is_name(h.name)) {
                memcpy(name, h.name, OVERLAY_NAME_MAX);
                return 0;
        }
        return err_input(err, "the file for an overlay is not empty");
}

static int new_id(struct overlay_id *id, struct err *err)
{
        if (getrandom(id, sizeof *id, 0) != (ssize_t)sizeof *id)
                return err_host(err, EIO, "no random bytes for an overlay's id");
        return 0;
}

int overlay_begin(int fd, bool memory, const struct overlay_info *info, struct overlay_info *made,
                  struct err *err)
{
        struct overlay_info own = *info;
        uint64_t bytes;
        int ret;

        if (!info->disk_bytes || info->disk_bytes % OVERLAY_SECTOR ||
            info->disk_bytes > OVERLAY_DISK_MAX)
                return err_input(err, "no overlay for a disk of %llu bytes",
                                 (unsigned long long)info->disk_bytes);
        ret = memory ? 0 : check_fresh(fd, own.name, err);
        if (!ret && overlay_is_image(&own.id))
                ret = new_id(&own.id, err);
        if (ret)
                return ret;
        bytes = OVERLAY_HEADER_BYTES + overlay_bitmap_bytes(own.disk_bytes) + own.disk_bytes;
        if (ftruncate(fd, (off_t)bytes))
                return err_host(err, errno, "overlay of %llu bytes: %s", (unsigned long long)bytes,
                                strerror(errno));
        ret = write_header(fd, &own, true, err);
        if (!ret)
                *made = own;
        return ret;
}

int overlay_unbegin(int fd, const char *name)
{
        struct overlay_info info = {0};

        strcpy(info.name, name);
        if (ftruncate(fd, OVERLAY_HEADER_BYTES))
                return -errno;
        return write_header(fd, &info, false, NULL);
}

int overlay_set_parent(struct overlay *o, const struct overlay_info *info, struct err *err)
{
        struct overlay_info own = *info;
        int ret;

        own.id = o->info.id;
        own.disk_bytes = o->info.disk_bytes;
        memcpy(own.name, o->info.name, sizeof own.name);
        if (!memcmp(&own, &o->info, sizeof own))
                return 0;
        ret = write_header(o->fd, &own, true, err);
        if (ret)
                return ret;
        o->info = own;
        o->unsynced = !o->memory;
        return 0;
}
