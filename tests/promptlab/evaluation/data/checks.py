"""Functions that a plan of the tests scores with."""


def polite(output, case):
    return "please" in output


def share(output, case):
    return case["expected"], "because"


def tokens(output, case, answer):
    return answer.output_tokens == 7


def broken(output, case):
    return 1 / 0


def wordy(output, case):
    return "yes"
