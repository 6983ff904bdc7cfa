// SPDX-License-Identifier: Apache-2.0
/*
 * Tree search by forks. The guest (examples/guest/choices) plays a game and asks for a move at each
 * turn. Nothing is written to play one move, take it back and play another: the machine is forked
 * into one clone for each move, all of them play on, and the few that have come nearest to the goal
 * are forked again. Prints the tree, and the moves that lead to the goal.
 *
 *      tree_search choices.elf
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ramet/vm.h>

#define MOVES 3
#define BEAM  4  /* machines that are kept at each turn */
#define TURNS 12 /* then it is given up */
#define NODES (1 + TURNS * BEAM * MOVES)

static const char *const moves[] = {"start", "* 2", "+ 7", "squared, mod 1009"};

struct node {
        struct ramet_vm *vm; /* NULL once it has been forked, or dropped */
        int parent, move;    /* -1 for the root's parent */
        unsigned distance;   /* from the goal, as the guest says */
        char number[16];     /* where it has come to, as the guest prints it */
        bool kept;
};

static struct ramet_ctx *ctx;
static struct node nodes[NODES];
static int nnodes;

static void must(int ret)
{
        if (ret >= 0)
                return;
        fprintf(stderr, "tree_search: %s\n", ramet_last_error(ctx));
        exit(2);
}

/* Let a machine run to its next turn, and write down where it is. */
static void add(struct ramet_vm *vm, int parent, int move)
{
        struct node *n = &nodes[nnodes++];
        struct ramet_vm_event event;

        *n = (struct node){.vm = vm, .parent = parent, .move = move};
        event.type = RAMET_VM_EXIT;
        must(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event));
        if (event.type != RAMET_VM_DOORBELL) {
                fprintf(stderr, "tree_search: the guest made no turn\n");
                exit(2);
        }
        n->distance = event.doorbell.value;
        must(ramet_vm_console_read(vm, n->number, sizeof n->number - 1));
        n->number[strcspn(n->number, "\r\n")] = '\0';
}

static int by_distance(const void *a, const void *b)
{
        const struct node *x = &nodes[*(const int *)a], *y = &nodes[*(const int *)b];

        return (x->distance > y->distance) - (x->distance < y->distance);
}

static void drop(struct node *n)
{
        ramet_vm_destroy(n->vm);
        n->vm = NULL;
}

/* All moves of all machines that are kept; then keep the best of what comes out. */
static void one_turn(void)
{
        struct ramet_vm *clones[MOVES];
        int born = nnodes, order[BEAM * MOVES];

        for (int i = 0; i < born; i++) {
                if (!nodes[i].vm)
                        continue;
                must(ramet_vm_fork(nodes[i].vm, MOVES, clones));
                drop(&nodes[i]);
                for (int m = 0; m < MOVES; m++)
                        add(clones[m], i, m + 1);
        }
        for (int i = born; i < nnodes; i++)
                order[i - born] = i;
        qsort(order, (size_t)(nnodes - born), sizeof order[0], by_distance);
        for (int i = 0; i < nnodes - born; i++) {
                nodes[order[i]].kept = i < BEAM;
                if (i >= BEAM)
                        drop(&nodes[order[i]]);
        }
}

static void show(int node, int depth)
{
        const struct node *n = &nodes[node];
        const char *mark = n->kept ? "" : "  (dropped)";

        printf("%*s%s: %s%s\n", 2 * depth, "", moves[n->move], n->number,
               n->distance == 0 ? "  <-- the goal" : mark);
        for (int i = 0; i < nnodes; i++)
                if (nodes[i].parent == node)
                        show(i, depth + 1);
}

static void show_path(int node)
{
        if (nodes[node].parent >= 0)
                show_path(nodes[node].parent);
        printf("%s%s", nodes[node].parent >= 0 ? ", " : "", moves[nodes[node].move]);
}

int main(int argc, char **argv)
{
        struct ramet_vm_config config = {
                .size = sizeof config, .kernel = argv[1], .memory_bytes = 16 << 20};
        struct ramet_vm *vm;
        int found = -1;

        if (argc != 2) {
                fprintf(stderr, "usage: tree_search choices.elf\n");
                return 2;
        }
        must(ramet_ctx_create(&ctx));
        must(ramet_vm_create(ctx, &config, &vm));
        add(vm, -1, 0);
        nodes[0].kept = true;
        for (int turn = 0; turn < TURNS && found < 0; turn++) {
                one_turn();
                for (int i = 0; i < nnodes; i++)
                        if (nodes[i].distance == 0)
                                found = i;
        }
        show(0, 0);
        printf("%d machines; %s", nnodes, found < 0 ? "the goal was not found" : "");
        if (found >= 0)
                show_path(found);
        putchar('\n');
        for (int i = 0; i < nnodes; i++)
                drop(&nodes[i]);
        ramet_ctx_destroy(ctx);
        return found < 0;
}
