/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner as a program of its own, for those that have threads and cannot fork: see launch.h.
 * It does what the forked one does. The library starts it, and nobody else can use it: it must be
 * of the library's version, since they talk in structs, and have the descriptors that it expects.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proc/launch.h"
#include "proc/vm_process.h"

static bool is_socket(int fd)
{
        int domain = 0, type = 0;
        socklen_t n = sizeof domain;

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX &&
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

/* A pidfd, of a process that is there. */
static bool is_pidfd(int fd)
{
        char path[64], text[1024];
        const char *pid;
        ssize_t n;

        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        pid = strstr(text, "\nPid:");
        return pid && strtol(pid + strlen("\nPid:"), NULL, 10) > 0;
}

int main(int argc, char **argv)
{
        struct vm_process_shared shared = {0};
        const struct spawner_ops ops = {
                .prepare = vm_process_prepare,
                .machine = vm_process_main,
                .shared = &shared,
        };

        if (argc != 2 || !is_socket(LAUNCH_SOCKET_FD) || !is_pidfd(LAUNCH_LAUNCHER_FD)) {
                fprintf(stderr, "ramet-spawner: is started by libramet, not by hand\n");
                return 2;
        }
        if (strcmp(argv[1], RAMET_VERSION) != 0) {
                fprintf(stderr, "ramet-spawner: of version %s, started by libramet %s\n",
                        RAMET_VERSION, argv[1]);
                return 2;
        }
        spawner_main(LAUNCH_SOCKET_FD, LAUNCH_LAUNCHER_FD, &ops);
}
