/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the tests of the public interface: see api.h. */
#include "api.h"

#include <dirent.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

struct ramet_ctx *api_ctx;

int api_init(void)
{
        int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

        if (fd < 0) {
                printf("1..0 # SKIP /dev/kvm: %s\n", strerror(errno));
                return 0;
        }
        close(fd);
        return ramet_ctx_create(&api_ctx) == 0 ? 1 : -1;
}

int api_check(int ret, const char *call, const char *file, int line)
{
        if (ret < 0) {
                print_error("%s: %d: %s\n", call, ret, ramet_last_error(api_ctx));
                _fail(file, line);
        }
        return ret;
}

void api_check_failure(int ret, int code, const char *word, const char *call, const char *file,
                       int line)
{
        const char *text = ramet_last_error(api_ctx);

        if (ret == code && strstr(text, word))
                return;
        print_error("%s: %d, expected %d; \"%s\", expected \"%s\" in it\n", call, ret, code, text,
                    word);
        _fail(file, line);
}

const char *api_guest(const char *name)
{
        static char path[4096];

        snprintf(path, sizeof path, "%s/%s", getenv("TEST_GUESTS"), name);
        return path;
}

struct ramet_vm_config api_config(void)
{
        return (struct ramet_vm_config){
                .size = sizeof(struct ramet_vm_config),
                .kernel = api_guest("servant.elf"),
                .memory_bytes = 16 << 20,
                .debug_exit_port = 0xf4,
                .hugepages = RAMET_HUGEPAGES_OFF,
        };
}

struct ramet_vm *api_vm_of(const struct ramet_vm_config *config)
{
        struct ramet_vm *vm = NULL;

        api_ok(ramet_vm_create(api_ctx, config, &vm));
        assert_non_null(vm);
        return vm;
}

struct ramet_vm *api_vm(void)
{
        const struct ramet_vm_config config = api_config();

        return api_vm_of(&config);
}

struct ramet_vm_event api_until(struct ramet_vm *vm, enum ramet_vm_event_type type)
{
        struct ramet_vm_event e = {0};

        if (api_ok(ramet_vm_run_until(vm, type, ENDLESS, &e)) == 0)
                fail_msg("no event %#x came", type);
        if (e.type == RAMET_VM_EXIT && type != RAMET_VM_EXIT)
                fail_msg("ended early: %s", e.exit.text);
        assert_int_equal(e.type, type);
        return e;
}

/* Events of several vCPUs hold them all, so the first wait lets none of them go. */
struct ramet_vm *api_ready(unsigned vcpus)
{
        struct ramet_vm_config config = api_config();
        struct ramet_vm_event e;
        struct ramet_vm *vm;

        config.vcpus = vcpus;
        vm = api_vm_of(&config);
        api_ok(ramet_vm_start(vm));
        for (unsigned i = 0; i < vcpus;) {
                assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
                if (e.type != RAMET_VM_CONSOLE) { /* its greeting */
                        assert_int_equal(e.type, RAMET_VM_DOORBELL);
                        i++;
                }
        }
        return vm;
}

struct ramet_template *api_template(unsigned vcpus)
{
        struct ramet_vm *vm = api_ready(vcpus);
        struct ramet_template *tmpl = NULL;

        api_ok(ramet_vm_freeze(vm, "ready", &tmpl));
        assert_non_null(tmpl);
        ramet_vm_destroy(vm);
        return tmpl;
}

struct ramet_vm *api_spawn(struct ramet_template *tmpl)
{
        struct ramet_vm *vm = NULL;

        api_ok(ramet_template_spawn(tmpl, NULL, &vm));
        assert_non_null(vm);
        return vm;
}

static uint64_t mail_at(unsigned cpu)
{
        return SERVANT_MAIL + cpu * 4096ull;
}

void api_get_mail(struct ramet_vm *vm, unsigned cpu, struct servant_mail *mail)
{
        api_ok(ramet_vm_read(vm, mail_at(cpu), mail, sizeof *mail));
}

void api_put_mail(struct ramet_vm *vm, unsigned cpu, const struct servant_mail *mail)
{
        api_ok(ramet_vm_write(vm, mail_at(cpu), mail, sizeof *mail));
}

void api_order(struct ramet_vm *vm, unsigned cpu, enum servant_order order, uint64_t value,
               uint64_t address, uint64_t number)
{
        struct servant_mail mail;

        api_get_mail(vm, cpu, &mail);
        mail.order = order;
        mail.value = value;
        mail.address = address;
        mail.number = number;
        mail.spins = mail.stop = 0;
        api_put_mail(vm, cpu, &mail);
}

void api_do(struct ramet_vm *vm, enum servant_order order, uint64_t value, uint64_t address,
            uint64_t number)
{
        struct servant_mail mail;

        api_order(vm, 0, order, value, address, number);
        while (api_until(vm, RAMET_VM_DOORBELL).vcpu != 0)
                ; /* another one's */
        api_get_mail(vm, 0, &mail);
        assert_int_equal(mail.order, SERVANT_NOTHING);
}

unsigned api_descriptors(void)
{
        unsigned n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

uint64_t api_word(struct ramet_vm *vm, uint64_t gpa)
{
        uint64_t v = 0;

        api_ok(ramet_vm_read(vm, gpa, &v, sizeof v));
        return v;
}

unsigned api_threads(void)
{
        DIR *dir = opendir("/proc/self/task");
        unsigned n = 0;

        assert_non_null(dir);
        for (struct dirent *d; (d = readdir(dir));)
                n += d->d_name[0] != '.';
        closedir(dir);
        return n;
}

void api_nap(unsigned ms)
{
        const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l};

        nanosleep(&t, NULL);
}
