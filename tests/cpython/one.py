"""Runs one module of CPython's test package and writes a line a test: outcome, id, first line of what went wrong.

    one.py MODULE OUTPUT [id to leave out ...]

A test that takes longer than LIMIT seconds ends the process; its line says "started", and the caller goes on without it.
"""
import faulthandler
import importlib
import sys
import unittest

LIMIT = 60


class Result(unittest.TestResult):
    def __init__(self, out):
        super().__init__()
        self.out = out

    def line(self, outcome, test, text=""):
        text = " ".join(str(text).split())[:300]
        print(outcome, test.id(), text, file=self.out, sep="\t", flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.line("started", test)
        faulthandler.dump_traceback_later(LIMIT, exit=True)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()

    def addSuccess(self, test):
        self.line("ok", test)

    def addError(self, test, err):
        self.line("failed", test, f"{err[0].__name__}: {err[1]}")

    addFailure = addError

    def addSkip(self, test, reason):
        self.line("skipped", test, reason)

    def addExpectedFailure(self, test, err):
        self.line("ok", test)

    def addUnexpectedSuccess(self, test):
        self.line("failed", test, "unexpected success")

    def addSubTest(self, test, subtest, err):
        if err:
            self.line("failed", test, f"{err[0].__name__}: {err[1]}")


def flat(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from flat(t)
        else:
            yield t


def main():
    name, output, *out_ids = sys.argv[1:]
    from test import support
    support.use_resources = ["network"] # local servers, too; nothing beyond the lab can be reached
    support.verbose = False
    with open(output, "a") as out:
        try:
            module = importlib.import_module("test." + name)
            tests = unittest.defaultTestLoader.loadTestsFromModule(module)
        except unittest.SkipTest as e:
            print("skipped", name, e, file=out, sep="\t")
            return
        left = unittest.TestSuite(t for t in flat(tests) if t.id() not in out_ids)
        left.run(Result(out))


if __name__ == "__main__": # multiprocessing's spawned children read this file too
    main()
