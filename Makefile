# libmpshim's build. "make help" lists the targets.
#
# Everything made goes to $(B): build/, or build/asan with ASAN=1; "make B=/some/dir" builds elsewhere, so that
# several builds can go on at once. V=1 shows whole commands. Sources are found by wildcard: a new file needs no edit.
#
#   libmpshim/core/**/*.c                 libmpcore.a            sans-I/O; tools/check-border.sh guards it
#   libmpshim/{core,io,engine}/**/*.c     libmpshim-engine.so    exports what is marked visible in engine/engine.h
#   libmpshim/engine/helper_*.c           mpshim-engine          the helper host
#   libmpshim/resolve/*.c                libmpshim-resolve.so   names, asked over every interface (libcares)
#   libmpshim/shim/*.c                    libmpshim.so           exports: shim/calls.def, and shim/extra.map where it exists
#   libmpshim/tools/NAME.c, NAME/*.c      NAME                   linked with no library; NAME_LIBS below for others
#   libmpshim/tools/NAME.sh               NAME
#   libmpshim/sim/*.c                     libmpsim.a             core's simulated network
#
# Tests. tests/DIR/NAME.c is a program $(B)/tests/DIR_NAME; tests/DIR/lib/*.c is linked into each program of DIR.
# "make check" runs it without arguments: status 0 is success, 77 skipped, and it has $(TEST_TIMEOUT) seconds.
#
#   DIR      linked with                     run by make check
#   unit     libmpcore.a                     in the plain and the sanitizer build
#   sim      libmpsim.a libmpcore.a          in the plain and the sanitizer build
#   fuzz     core/ (control: engine/)     over tests/fuzz/corpus, in the sanitizer build; "make fuzz" runs libFuzzer
#   io       io/, core/                      no: they need a network namespace; pytest runs them
#   engine   engine/ (no main), io/, core/   no: likewise
#   shim     libc                            no: likewise (programs to run under libmpshim.so)
#   lab/linkem  libmpsim.a libmpcore.a: one program, $(B)/tests/linkem; lab/rates.c: libc, $(B)/tests/rates

.SUFFIXES:
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
PYTHON = /usr/bin/python3
TEST_TIMEOUT = 600
JOBS := $(shell nproc)
SHELL = /bin/sh

# Targets that need no configuration: they make it themselves or do without.
no_config := apps fuzz coverage help clean distclean check demo bench cpython-tests bootstrap border fmt lint
goals := $(or $(MAKECMDGOALS),all)
ifneq ($(filter-out $(no_config),$(goals)),)
include build/config.mk
build/config.mk: configure
	@if [ -f $@ ]; then ./configure $(or $(CONFIGURED_WITH),'CC=$(CC)' 'CFLAGS=$(CFLAGS)' 'CPPFLAGS=$(CPPFLAGS)' --prefix=$(prefix)); else ./configure; fi
endif

ASAN ?= 0
ifeq ($(ASAN),1)
B = build/asan
# Compiled in two thirds of the time that -O2 takes, and hardly slower to run.
SANITIZE = $(if $(filter -O2,$(CFLAGS)),-O1) -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else
B = build
endif

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) '$(patsubst $(B)/%,%,$@)';)

# ---- flags
C17 = -std=c17 -D_GNU_SOURCE= -Ilibmpshim -Iinclude -fvisibility=hidden -fPIC -pthread -MMD -MP
version := $(shell sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
DEFS = -DMPSHIM_LIBDIR='"$(libdir)/libmpshim"' -DMPSHIM_LIBREL='"$(patsubst $(prefix)/%,%,$(libdir))"' -DMPSHIM_VERSION='"$(version)"'
ALL_CFLAGS = $(C17) -Wall -Wextra $(WARN) $(DEFS) $(CPPFLAGS) $(CFLAGS) $(SANITIZE) $(EXTRA)
LINK = $(CC) $(CFLAGS) $(SANITIZE) -pthread $(LDFLAGS)
LDDEFS = -Wl,-z,defs
$(B)/obj/libmpshim/io/%.o: EXTRA = $(EV_CFLAGS) $(MNL_CFLAGS)
$(B)/obj/libmpshim/engine/%.o: EXTRA = $(EV_CFLAGS) $(MNL_CFLAGS) $(JSON_CFLAGS)
$(B)/obj/libmpshim/core/%.o: EXTRA = $(CRYPTO_CFLAGS)
# What one engine hands to another is plain data: both must have been built of the same headers.
layout_h := $(sort $(wildcard libmpshim/core/*.h libmpshim/core/*/*.h libmpshim/io/io.h libmpshim/engine/*.h))
$(B)/obj/libmpshim/engine/move_in.o: $(layout_h)
$(B)/obj/libmpshim/engine/move_in.o: DEFS += -DMOVE_LAYOUT=$(firstword $(shell cat $(layout_h) | cksum))u
# The interposed calls have their prototypes in libc's headers only in part (the _chk forms are the compiler's own).
$(B)/obj/libmpshim/shim/%.o: EXTRA = -Wno-missing-prototypes
$(B)/obj/libmpshim/resolve/%.o: EXTRA = $(CARES_CFLAGS)
ENGINE_LIBS = $(EV_LIBS) $(MNL_LIBS) $(JSON_LIBS) $(CRYPTO_LIBS) -lm
CORE_LIBS = $(CRYPTO_LIBS) -lm

# ---- sources
src = $(sort $(wildcard $(addprefix libmpshim/$(1)/,*.c */*.c)))
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
core_o := $(call obj,$(call src,core))
io_o := $(call obj,$(call src,io))
engine_main := $(wildcard libmpshim/engine/helper_*.c)
engine_o := $(call obj,$(filter-out $(engine_main),$(call src,engine)))
resolve_o := $(call obj,$(call src,resolve))
shim_o := $(call obj,$(call src,shim))
sim_o := $(call obj,$(call src,sim))
tool_c := $(patsubst libmpshim/tools/%.c,$(B)/%,$(wildcard libmpshim/tools/*.c))
tool_sh := $(patsubst libmpshim/tools/%.sh,$(B)/%,$(wildcard libmpshim/tools/*.sh))

# ---- products: each as soon as it has sources
lib_engine := $(if $(engine_o),$(B)/libmpshim-engine.so)
lib_resolve := $(if $(resolve_o),$(B)/libmpshim-resolve.so)
lib_shim := $(if $(shim_o),$(B)/libmpshim.so)
helper := $(if $(engine_main),$(B)/mpshim-engine)
tools := $(tool_c) $(tool_sh)
here := $(if $(filter build,$(B)),$(notdir $(tools)))

test_programs = $(patsubst tests/$(1)/%.c,$(B)/tests/$(1)_%,$(sort $(wildcard tests/$(1)/*.c)))
test_lib = $(call obj,$(sort $(wildcard tests/$(1)/lib/*.c)))
t_unit := $(call test_programs,unit)
t_sim := $(call test_programs,sim)
t_io := $(call test_programs,io)
t_engine := $(call test_programs,engine)
t_shim := $(call test_programs,shim)
t_fuzz := $(filter-out $(B)/tests/fuzz_replay,$(call test_programs,fuzz))
t_lab := $(B)/tests/linkem
t_rates := $(B)/tests/rates
examples := $(patsubst examples/%.c,$(B)/examples/%,$(wildcard examples/*.c))
test_all := $(t_unit) $(t_sim) $(t_io) $(t_engine) $(t_shim) $(t_lab) $(t_rates)

.PHONY: matrix-lab FORCE fallback-table soak matrix apps cpython-tests all tests install uninstall check demo bench bootstrap border replay
.PHONY: fuzz fmt lint coverage clean distclean help

all: $(B)/libmpcore.a $(lib_engine) $(lib_resolve) $(lib_shim) $(helper) $(tools) $(here) $(examples) ## the libraries, the helper and ./mptcp-run (default)

demo: ## two paths, a download with and without mptcp-run, a path pulled in mid-transfer; installs what is missing
	@tools/bootstrap.sh
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/linkem
	@PYTHONPATH=tests $(PYTHON) -m lab.demo

check: ## border check, unit and simulation tests (plain and sanitized), end-to-end tests; installs what is missing
	@tools/bootstrap.sh --tests
	@+MAKE="$(MAKE)" PYTHON="$(PYTHON)" JOBS="$(JOBS)" TEST_TIMEOUT="$(TEST_TIMEOUT)" tools/check.sh

cpython-tests: ## CPython's own socket tests over kernel TCP and under mptcp-run: the differences (MODULES="test_socket ...")
	@tools/bootstrap.sh --cpython
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/linkem
	@$(PYTHON) tests/cpython $(MODULES)

bench: ## throughput and CPU seconds per GB beside kernel TCP and kernel MPTCP
	@tools/bootstrap.sh --tests
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/linkem $(B)/tests/rates $(B)/tests/sim_fairness
	@PYTHONPATH=tests $(PYTHON) -m lab.bench
	@PYTHONPATH=tests $(PYTHON) -m lab.costs

apps: ## unmodified programs as client, server and both, over two paths: writes docs/app-matrix.md; installs them
	@tools/bootstrap.sh --apps
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/linkem
	@PYTHONPATH=tests $(PYTHON) -m apps --write docs/app-matrix.md $(ARGS)

tests: all $(test_all) ## every test program, not run

replay: $(B)/tests/sim_run ## one simulated run bit for bit, traced: make replay SEED=7 [ARGS="--pcap run"]
	@[ -n "$(SEED)" ] || { echo "usage: make replay SEED=number [ARGS=...]" >&2; exit 2; }
	$(B)/tests/sim_run --seed $(SEED) --trace $(ARGS)

matrix: $(B)/tests/sim_matrix ## each kind of middlebox against simulated connections: writes docs/box-matrix.md
	$(B)/tests/sim_matrix --write docs/box-matrix.md

fallback-table: ## the table of fallbacks, state by event: writes docs/fallback.md
	tools/fallback-table.sh > docs/fallback.md

soak: $(B)/tests/sim_property ## SEEDS more random simulations (2000), resumed where the last run ended; totals go to docs/soak.md
	@tools/soak.sh

matrix-lab: ## the same boxes in the lab, against the kernel as client and server: half an hour, less with ARGS="--jobs 2"; writes docs/box-matrix.md too
	@tools/bootstrap.sh --tests
	@$(MAKE) --no-print-directory -j$(JOBS) all $(B)/tests/linkem
	@PYTHONPATH=tests $(PYTHON) -m lab.boxes --write docs/box-matrix.md $(ARGS)

fuzz: ## libFuzzer on every target, FUZZ_SECONDS each (60); needs clang; totals go to docs/fuzzing.md
	@tools/bootstrap.sh --fuzz
	@tools/fuzz.sh $(TARGETS)

coverage: ## line coverage of core/ by its unit and simulation tests, per file (gcov); builds in build/cov
	@+MAKE="$(MAKE)" JOBS="$(JOBS)" tools/coverage.sh

# The helper opens raw sockets for users who are not root. Below DESTDIR this is left to the package's own script.
CAPS = cap_net_raw,cap_net_admin+ep
grant = setcap $(CAPS) $(1) || echo "users who are not root need, by root: setcap $(CAPS) $(1)"

# Manual pages have the settings' table from the list, completions too: they cannot differ from it.
man := $(addprefix $(B)/man/,$(notdir $(wildcard docs/man/*.[17])))
completions := $(B)/completion/mptcp-run.bash $(B)/completion/_mptcp-run
headers = $(wildcard include/*.h)
datadir ?= $(prefix)/share
bash_dir = $(datadir)/bash-completion/completions
zsh_dir = $(datadir)/zsh/site-functions

$(B)/man/%: docs/man/% $(B)/mptcp-run
	@mkdir -p $(@D)
	$(call say,GEN)$(B)/mptcp-run --print-as=roff > $@.part && sed -e '/@SETTINGS@/{' -e 'r $@.part' -e 'd;}' $< > $@ && rm $@.part
$(B)/completion/mptcp-run.bash: $(B)/mptcp-run
	@mkdir -p $(@D)
	$(call say,GEN)$< --completion=bash > $@
$(B)/completion/_mptcp-run: $(B)/mptcp-run
	@mkdir -p $(@D)
	$(call say,GEN)$< --completion=zsh > $@
# Each time: "make install prefix=..." may have made it for another place.
$(B)/mpshim.pc: packaging/mpshim.pc.in build/config.mk debian/changelog FORCE
	$(call say,GEN)sed 's|@prefix@|$(prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@version@|$(version)|' $< > $@

man: $(man) ## the manual pages, into build/man

install: all $(man) $(completions) $(B)/mpshim.pc ## into prefix, below DESTDIR
	install -d $(addprefix $(DESTDIR),$(libdir)/libmpshim $(libdir)/pkgconfig $(bindir) $(mandir)/man1 $(mandir)/man7 $(bash_dir) $(zsh_dir) $(datadir)/doc/mpshim $(if $(headers),$(includedir)))
	install -m 644 $(lib_engine) $(lib_resolve) $(lib_shim) $(DESTDIR)$(libdir)/libmpshim
	$(if $(helper),install -m 755 $(helper) $(DESTDIR)$(libdir)/libmpshim)
	$(if $(DESTDIR),,@$(call grant,$(libdir)/libmpshim/mpshim-engine))
	$(if $(tools),install -m 755 $(tools) $(DESTDIR)$(bindir))
	$(if $(headers),install -m 644 $(headers) $(DESTDIR)$(includedir))
	install -m 644 $(B)/mpshim.pc $(DESTDIR)$(libdir)/pkgconfig
	install -m 644 $(filter %.1,$(man)) $(DESTDIR)$(mandir)/man1
	install -m 644 $(filter %.7,$(man)) $(DESTDIR)$(mandir)/man7
	install -m 644 $(B)/completion/mptcp-run.bash $(DESTDIR)$(bash_dir)/mptcp-run
	install -m 644 packaging/mptcp-stat.bash $(DESTDIR)$(bash_dir)/mptcp-stat
	install -m 644 $(B)/completion/_mptcp-run $(DESTDIR)$(zsh_dir)
	install -m 644 packaging/mpshim.conf.example $(DESTDIR)$(datadir)/doc/mpshim

uninstall: ## what install put there
	rm -rf $(DESTDIR)$(libdir)/libmpshim $(DESTDIR)$(datadir)/doc/mpshim
	rm -f $(addprefix $(DESTDIR)$(bindir)/,$(notdir $(tools))) $(addprefix $(DESTDIR)$(includedir)/,$(notdir $(headers)))
	rm -f $(addprefix $(DESTDIR)$(mandir)/man1/,$(notdir $(filter %.1,$(man)))) $(addprefix $(DESTDIR)$(mandir)/man7/,$(notdir $(filter %.7,$(man))))
	rm -f $(DESTDIR)$(libdir)/pkgconfig/mpshim.pc $(addprefix $(DESTDIR)$(bash_dir)/,mptcp-run mptcp-stat) $(DESTDIR)$(zsh_dir)/_mptcp-run

deb: ## the Debian package, into build/deb
	@tools/deb.sh

border: ## core/ makes no system call and includes nothing from above it; docs/architecture.md names each file
	@tools/check-border.sh

# cppcheck does not see that a call through a pointer fills its argument (uninitvar, ctuuninitvar); gcc's own warnings do. The macros that it
# is told are the build's and jansson's.
lint: ## cppcheck over all C files, shellcheck over the scripts where it is installed
	@command -v cppcheck > /dev/null || { echo "lint needs cppcheck: apt-get install cppcheck" >&2; exit 1; }
	$(Q)cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
	    --suppress=uninitvar --suppress=ctuuninitvar --suppress=nullPointer:tests/lab/linkem/model.c -j$(JOBS) -Ilibmpshim -D_GNU_SOURCE -DMOVE_LAYOUT=0u \
	    '-Djson_array_foreach(a,i,v)=while((v=json_array_get(a,i=json_next(a))))' \
	    '-Djson_object_foreach(o,k,v)=while((v=json_object_get(o,k=json_next(o))))' libmpshim tests
	$(Q)! command -v shellcheck > /dev/null || shellcheck -S warning -e SC1007,SC2034,SC2154 configure tools/*.sh $(wildcard tests/*.sh) .ci/run

fmt: ## clang-format over the lines that the working tree changes, in place
	@command -v git-clang-format > /dev/null || { echo "fmt needs clang-format: apt-get install clang-format" >&2; exit 1; }
	$(Q)git clang-format --extensions c,h

clean: ## what was built; the configuration stays
	rm -rf build/obj build/asan build/cov build/tests build/examples build/gen build/man build/completion build/deb build/*.a build/*.so build/mpshim-engine $(addprefix build/,$(notdir $(tools))) $(notdir $(tools))

distclean: ## everything that is not a source
	rm -rf build $(notdir $(tools))

bootstrap: ## installs the packages that building and testing need (root on Debian)
	@tools/bootstrap.sh --tests

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

# ---- rules
$(B)/obj/%.o: %.c build/config.mk
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(B)/libmpcore.a: $(core_o)
	$(call say,AR)rm -f $@ && ar rcs $@ $^
$(B)/libmpsim.a: $(sim_o)
	$(call say,AR)rm -f $@ && ar rcs $@ $^

# The engine binds its own symbols to itself: the programs it is loaded into carry other libraries' names.
$(B)/libmpshim-engine.so: $(engine_o) $(io_o) $(core_o)
	$(call say,LD)$(LINK) -shared $(if $(SANITIZE),,$(LDDEFS)) -Wl,-soname,$(@F) -Wl,-Bsymbolic -Wl,-z,relro,-z,now -o $@ $^ $(ENGINE_LIBS)

$(B)/libmpshim-resolve.so: $(resolve_o)
	$(call say,LD)$(LINK) -shared $(if $(SANITIZE),,$(LDDEFS)) -Wl,-soname,$(@F) -Wl,-Bsymbolic -Wl,-z,relro,-z,now -o $@ $^ $(CARES_LIBS)

$(B)/gen/shim.map: $(wildcard libmpshim/shim/*.def libmpshim/shim/*.map) tools/gen-map.sh
	@mkdir -p $(@D)
	$(call say,GEN)tools/gen-map.sh libmpshim/shim > $@
$(B)/libmpshim.so: $(shim_o) $(B)/gen/shim.map
	$(call say,LD)$(LINK) -shared $(if $(SANITIZE),,$(LDDEFS)) -Wl,--version-script=$(B)/gen/shim.map -Wl,-z,relro -o $@ $(shim_o) -ldl

# The helper has the engine in itself: with file capabilities, the loader takes no library from beside the program.
$(B)/mpshim-engine: $(call obj,$(engine_main)) $(engine_o) $(io_o) $(core_o)
	$(call say,LD)$(LINK) -pie -Wl,-z,relro,-z,now -o $@ $^ $(ENGINE_LIBS)

mptcp-stat_LIBS = $(JSON_LIBS)
mptcp-run_LIBS = $(INI_LIBS)
mptcp-run_also = libmpshim/shim/rules.c
$(B)/obj/libmpshim/tools/%.o: EXTRA = $(JSON_CFLAGS) $(INI_CFLAGS)
tool_parts = $(call obj,$(sort $(wildcard libmpshim/tools/$(1)/*.c)) $($(1)_also))
.SECONDEXPANSION:
$(tool_c): $(B)/%: $(B)/obj/libmpshim/tools/%.o $$(call tool_parts,$$*)
	$(call say,LD)$(LINK) -pie -o $@ $^ $($(notdir $@)_LIBS) -ldl
$(tool_sh): $(B)/%: libmpshim/tools/%.sh
	$(call say,GEN)sed 's|@LIBDIR@|$(libdir)/libmpshim|g' $< > $@ && chmod +x $@
# In the source tree, beside the README's ./mptcp-run; it finds its libraries beside the file the link leads to.
$(here): %: build/%
	@ln -sf $< $@

link_test = $(call say,LD)mkdir -p $(@D) && $(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^)
$(t_unit): $(B)/tests/unit_%: $(B)/obj/tests/unit/%.o $(call test_lib,unit) $(B)/libmpcore.a
	$(link_test) $(CORE_LIBS)
$(t_sim): $(B)/tests/sim_%: $(B)/obj/tests/sim/%.o $(call test_lib,sim) $(B)/libmpsim.a $(B)/libmpcore.a
	$(link_test) $(CORE_LIBS)
$(t_io): $(B)/tests/io_%: $(B)/obj/tests/io/%.o $(call test_lib,io) $(io_o) $(B)/libmpcore.a
	$(link_test) $(ENGINE_LIBS)
$(t_engine): $(B)/tests/engine_%: $(B)/obj/tests/engine/%.o $(call test_lib,engine) $(engine_o) $(io_o) $(B)/libmpcore.a
	$(link_test) $(ENGINE_LIBS)
$(t_shim): $(B)/tests/shim_%: $(B)/obj/tests/shim/%.o $(call test_lib,shim)
	$(link_test) -ldl
# Fuzz targets without libFuzzer: they run over the kept corpora. The control target holds engine.c in itself.
$(B)/obj/tests/fuzz/%.o: EXTRA = -Itests/unit -Itests/fuzz $(EV_CFLAGS) $(MNL_CFLAGS) $(JSON_CFLAGS)
conf_readers := libmpshim/tools/mptcp-run/files.c libmpshim/tools/mptcp-run/settings.c libmpshim/shim/rules.c
fuzz_core := $(filter-out %_control %_conf,$(t_fuzz))
$(fuzz_core): $(B)/tests/fuzz_%: $(B)/obj/tests/fuzz/%.o $(B)/obj/tests/fuzz/replay.o $(call test_lib,fuzz) $(B)/libmpsim.a $(B)/libmpcore.a
	$(link_test) $(CORE_LIBS)
$(filter %_conf,$(t_fuzz)): $(B)/tests/fuzz_%: $(B)/obj/tests/fuzz/%.o $(B)/obj/tests/fuzz/replay.o $(call obj,$(conf_readers))
	$(link_test) $(INI_LIBS)
$(filter %_control,$(t_fuzz)): $(B)/tests/fuzz_%: $(B)/obj/tests/fuzz/%.o $(B)/obj/tests/fuzz/replay.o $(engine_o) $(B)/libmpcore.a
	$(link_test) $(ENGINE_LIBS)
$(examples): $(B)/examples/%: $(B)/obj/examples/%.o
	$(call say,LD)mkdir -p $(@D) && $(LINK) -o $@ $<
$(t_lab): $(call obj,$(sort $(wildcard tests/lab/linkem/*.c))) $(B)/libmpsim.a $(B)/libmpcore.a
	$(link_test) $(CORE_LIBS)

$(t_rates): $(B)/obj/tests/lab/rates.o
	$(call say,LD)mkdir -p $(@D) && $(LINK) -o $@ $<

# Kept, so that one changed file makes one new object.
.SECONDARY:
-include $(shell [ ! -d $(B)/obj ] || find $(B)/obj -name '*.d')
