/* Walks every state x event of the fallback table (RFC 8684 3.7). */
#include "core/fallback.h"
#include "test.h"

TEST(every_state_and_event_has_one_answer)
{
    int lists[FB_STATES][FB_EVENTS] = { 0 };
    static const char *why[128];
#define X(state, event, next, action, source) lists[FB_##state][FB_##event]++;
#define NEVER(state, event, reason) lists[FB_##state][FB_##event] += 100; CHECK(why[(int)#reason[0]]);
#define REASON(letter, text) CHECK(!why[(int)#letter[0]]); why[(int)#letter[0]] = text;
#include "core/fallback.def"
#undef X
    for (int s = 0; s < FB_STATES; s++)
        for (int e = 0; e < FB_EVENTS; e++) {
            struct fb_step r = fb_lookup((enum fb_state)s, (enum fb_event)e);
            ROW("state %d, event %d", s, e);
            CHECK(lists[s][e] == (r.source ? 1 : 100)); /* in one of the two, once */
            if (r.source) continue;
            CHECK(r.next == (enum fb_state)s);
            CHECK(r.action == FB_reset_subflow);
        }
    ROW("%s", "");
}

TEST(plain_tcp_is_never_left)
{
    for (int e = 0; e < FB_EVENTS; e++) CHECK(fb_lookup(FB_PLAIN, (enum fb_event)e).next == FB_PLAIN);
}

TEST(a_confirmed_connection_never_falls_back_for_missing_options)
{
    CHECK(fb_lookup(FB_CONFIRMED, FB_DATA_WITHOUT_DSS).action == FB_reset_subflow);
    CHECK(fb_lookup(FB_CONFIRMED, FB_CSUM_BAD_MULTI).next == FB_CONFIRMED);
}

TEST(an_offer_without_answer_is_plain_tcp)
{
    CHECK(fb_lookup(FB_OFFERED, FB_SYNACK_WITHOUT_OPTION).next == FB_PLAIN);
    CHECK(fb_lookup(FB_OFFERED, FB_SYN_WITHOUT_OPTION).next == FB_PLAIN);
    CHECK(fb_lookup(FB_OFFERED, FB_HANDSHAKE_DONE).next == FB_UNCONFIRMED);
    CHECK(fb_lookup(FB_UNCONFIRMED, FB_DSS_SEEN).next == FB_CONFIRMED);
}

