/* --watch: the table again and again. On a terminal in place, on its second screen; elsewhere one table after another. */
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "stat.h"

static volatile sig_atomic_t ended;
static void on_signal(int sig) { ended = sig; }

static struct termios before;
static bool is_raw;

static void screen_begin(void)
{
    struct termios t;
    if (tcgetattr(STDIN_FILENO, &before) == 0) {
        t = before;
        t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
    }
    fputs("\033[?1049h\033[?25l", stdout);
}

static void screen_end(void)
{
    if (is_raw) tcsetattr(STDIN_FILENO, TCSANOW, &before);
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
}

static int height(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 3 ? w.ws_row - 2 : 22;
}

/* Other keys than q do not shorten the pause: rates need it. */
static void wait_key(double seconds)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    double until = stat_clock() + seconds;
    char c;
    if (!is_raw) stat_pause(seconds);
    for (double left = seconds; is_raw && !ended && left > 0; left = until - stat_clock()) {
        if (poll(&p, 1, (int)(left * 1000) + 1) <= 0) continue;
        if (read(STDIN_FILENO, &c, 1) <= 0) ended = 1;
        else if (c == 'q' || c == 'Q') ended = 1;
    }
}

static void draw(json_t *engines, bool tty, const char *const *want)
{
    char sum[512], at[16];
    time_t now = time(NULL);
    struct lines l = {.max = tty ? height() : 0, .color = tty, .out = stdout, .want = want};
    strftime(at, sizeof at, "%H:%M:%S", localtime(&now));
    stat_sum(engines, sum, sizeof sum);
    printf("%s%s  %s%s\n%s", tty ? "\033[H" : "", at, sum, tty ? "\033[K" : "", tty ? "\033[K\n" : "");
    stat_table(engines, &l);
    fputs(tty ? "\033[J" : "\n", stdout);
    fflush(stdout);
}

int stat_watch(double interval, const char *const *want)
{
    struct sigaction a = {.sa_handler = on_signal};
    struct found f;
    bool tty = isatty(STDOUT_FILENO);
    sigaction(SIGINT, &a, NULL), sigaction(SIGTERM, &a, NULL), sigaction(SIGPIPE, &a, NULL);
    json_t *old = stat_take(&f);
    double old_at = stat_clock();
    if (tty) screen_begin();
    stat_pause(interval < 0.25 ? interval : 0.25);
    while (!ended && !ferror(stdout)) {
        json_t *now = stat_take(&f);
        double at = stat_clock();
        stat_rates(now, old, at - old_at);
        draw(now, tty, want);
        json_decref(old);
        old = now, old_at = at;
        wait_key(interval);
    }
    json_decref(old);
    if (tty) screen_end();
    return 0;
}
