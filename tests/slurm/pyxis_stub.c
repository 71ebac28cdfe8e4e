/* Stands in for pyxis: takes its options of srun, writes them to the file RECORD, and contains nothing. */
#include <slurm/spank.h>
#include <stdio.h>

SPANK_PLUGIN(pyxis_stub, 1)

static const char *const NAMES[] = {"container-image", "container-mounts", "container-workdir"};

static int record(int which, const char *value, int remote)
{
    FILE *file = remote ? NULL : fopen(RECORD, "a");
    if (file) {
        fprintf(file, "--%s=%s\n", NAMES[which], value);
        fclose(file);
    }
    return 0;
}

int slurm_spank_init(spank_t spank, int ac, char **av)
{
    for (int which = 0; which < 3; which++) {
        struct spank_option option = {(char *)NAMES[which], "TEXT", "an option of pyxis", 1, which, record};
        spank_option_register(spank, &option);
    }
    return 0;
}
