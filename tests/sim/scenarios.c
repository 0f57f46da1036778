/* Every scenario of sim/table.c holds; the table of results is printed. */
#include "report.h"

int main(void)
{
    int failed = 0;
    report_head(stdout);
    for (int i = 0; i < sim_table_n; i++) {
        struct sim_result r;
        bool ok = sim_scen_run(&sim_table[i], 1, NULL, NULL, &r);
        report_row(stdout, &sim_table[i], &r);
        if (!ok) report_failure(stdout, &sim_table[i], 1, &r);
        failed += !ok;
    }
    printf("sim_scenarios: %d scenarios, %d failed\n", sim_table_n, failed);
    return failed != 0;
}
