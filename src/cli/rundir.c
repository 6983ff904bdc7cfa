/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of control sockets. A launcher that was killed leaves its socket behind (if its
 * keeper was killed with it); such a file refuses connections, and whoever meets it removes it. So
 * that nobody removes one that was just bound and does not listen yet, all changes are made under
 * an exclusive flock(2) of the directory itself, which leaves no lock file behind.
 *
 * /tmp belongs to everybody, so the directory there must be ours: a directory, not a link, of this
 * user, with no rights for others.
 */
#include "cli/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX  ".sock"
#define BACKLOG 16

#define QUEUE_TURNS 300 /* of 10 ms: how long a client waits for a place in the queue */

static int choose_path(struct rundir *dir, struct err *err)
{
        const char *xdg = getenv("XDG_RUNTIME_DIR");
        int n;

        if (xdg && xdg[0] == '/')
                n = snprintf(dir->path, sizeof dir->path, "%s/ramet", xdg);
        else if (geteuid() == 0)
                n = snprintf(dir->path, sizeof dir->path, "/run/ramet");
        else
                n = snprintf(dir->path, sizeof dir->path, "/tmp/ramet-%u", (unsigned)geteuid());
        if (n >= (int)sizeof dir->path)
                return err_input(err, "$XDG_RUNTIME_DIR is too long for a socket in it");
        return 0;
}

int rundir_open(struct rundir *dir, struct err *err)
{
        struct stat st;
        int ret = choose_path(dir, err);

        if (ret)
                return ret;
        if (mkdir(dir->path, 0700) && errno != EEXIST)
                return err_host(err, errno, "%s: cannot be made: %s", dir->path, strerror(errno));
        dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir->fd < 0)
                return err_host(err, errno, "%s: %s", dir->path, strerror(errno));
        if (fstat(dir->fd, &st) || st.st_uid != geteuid() || st.st_mode & 022) {
                rundir_close(dir);
                return err_host(err, EPERM, "%s: not a directory of this user alone; remove it",
                                dir->path);
        }
        return 0;
}

void rundir_close(struct rundir *dir)
{
        close(dir->fd);
        dir->fd = -1;
}

/* The address of NAME's socket; through /proc where the path is longer than the address can be. */
static int address(const struct rundir *dir, const char *name, struct sockaddr_un *sun)
{
        int n;

        *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
        n = snprintf(sun->sun_path, sizeof sun->sun_path, "%s/%s" SUFFIX, dir->path, name);
        if (n >= (int)sizeof sun->sun_path)
                n = snprintf(sun->sun_path, sizeof sun->sun_path, "/proc/self/fd/%d/%s" SUFFIX,
                             dir->fd, name);
        return n < (int)sizeof sun->sun_path ? 0 : -ENAMETOOLONG;
}

/* 0 and a non-blocking connection, -ECONNREFUSED: nobody listens, -ENOENT: no socket, -errno. A
 * full queue (-EAGAIN) is the sign of a launcher that is busy, and so of one that lives. */
static int try_connect(const struct rundir *dir, const char *name, int *fd)
{
        struct sockaddr_un sun;
        int ret = address(dir, name, &sun);

        if (ret)
                return ret;
        *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (*fd < 0)
                return -errno;
        if (!connect(*fd, (struct sockaddr *)&sun, sizeof sun))
                return 0;
        ret = -errno;
        close(*fd);
        return ret;
}

void rundir_unlink(struct rundir *dir, const char *name)
{
        char file[128];

        snprintf(file, sizeof file, "%s" SUFFIX, name);
        unlinkat(dir->fd, file, 0);
}

static int bind_and_listen(struct rundir *dir, const char *name, int *out)
{
        struct sockaddr_un sun;
        int fd, ret = address(dir, name, &sun);

        if (ret)
                return ret;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (bind(fd, (struct sockaddr *)&sun, sizeof sun)) {
                ret = -errno;
                goto close_fd;
        }
        if (listen(fd, BACKLOG)) {
                ret = -errno;
                rundir_unlink(dir, name);
                goto close_fd;
        }
        *out = fd;
        return 0;

close_fd:
        close(fd);
        return ret;
}

int rundir_listen(struct rundir *dir, const char *name, int *out, struct err *err)
{
        int fd, ret;

        while (flock(dir->fd, LOCK_EX) && errno == EINTR)
                ;
        ret = try_connect(dir, name, &fd);
        if (ret == 0)
                close(fd);
        if (ret == 0 || ret == -EAGAIN) {
                err_input(err, "a machine named '%s' is running already (ramet list)", name);
                ret = -EADDRINUSE;
                goto unlock;
        }
        if (ret == -ECONNREFUSED)
                rundir_unlink(dir, name);
        ret = bind_and_listen(dir, name, out);
        if (ret)
                err_host(err, -ret, "%s/%s" SUFFIX ": %s", dir->path, name, strerror(-ret));
unlock:
        flock(dir->fd, LOCK_UN);
        return ret;
}

/* A queue that is full has room again as soon as the launcher gets a turn; poll(2) cannot tell. */
static int connect_in_turn(const struct rundir *dir, const char *name, int *fd)
{
        const struct timespec turn = {.tv_nsec = 10000000};
        int ret = try_connect(dir, name, fd);

        for (unsigned i = 0; ret == -EAGAIN && i < QUEUE_TURNS; i++) {
                nanosleep(&turn, NULL);
                ret = try_connect(dir, name, fd);
        }
        return ret;
}

int rundir_connect(struct rundir *dir, const char *name, int *out)
{
        int fd, ret = connect_in_turn(dir, name, &fd);

        if (ret == -ECONNREFUSED) {
                /* Left behind, or between bind and listen: look again when nobody binds. */
                while (flock(dir->fd, LOCK_EX) && errno == EINTR)
                        ;
                ret = try_connect(dir, name, &fd);
                if (ret == -ECONNREFUSED) {
                        rundir_unlink(dir, name);
                        ret = -ENOENT;
                }
                flock(dir->fd, LOCK_UN);
        }
        if (ret)
                return ret;
        if (fcntl(fd, F_SETFL, 0)) {
                ret = -errno;
                close(fd);
                return ret;
        }
        *out = fd;
        return 0;
}

int rundir_each(struct rundir *dir, void (*each)(void *data, const char *name), void *data)
{
        int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *list = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;

        if (!list) {
                int ret = -errno;

                if (fd >= 0)
                        close(fd);
                return ret;
        }
        while (entry = readdir(list), entry) {
                char *name = entry->d_name;
                size_t len = strlen(name), tail = sizeof SUFFIX - 1;

                if (len <= tail || strcmp(name + len - tail, SUFFIX) != 0)
                        continue;
                name[len - tail] = '\0';
                each(data, name);
        }
        closedir(list);
        return 0;
}
