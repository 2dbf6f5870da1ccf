"""Names for runs whose caller gave none."""

from __future__ import annotations

import secrets

_WORDS = """
able amber ample apt bold brave brisk calm candid clean clear clever crisp curious dapper daring deft eager early fair
fine firm fleet fond frank fresh gentle glad golden grand hardy honest humble keen kind lively loyal lucky merry mild
modest neat nimble noble patient placid polite proud quick quiet rare ready robust rosy serene sharp silent sleek smart
solid spry steady sunny sure swift tidy trim true upbeat vivid warm wise witty zesty
;
ant asp bass bat bear bee bird boar bug calf carp cat chimp cod colt crab crane crow deer dog dolphin dove duck eel elk
fawn finch fish flea fly foal fowl fox frog gnat goat goose grouse grub gull hare hawk hen hog horse hound jay kit koi
lamb lark lynx mare midge mink mole moose moth mouse mule newt owl ox panda penguin perch pig pug quail ram rat ray
robin roo rook seal shad shark sheep shoat shrew skink skunk slug smelt snail snake snipe sow sponge squid squirrel stag
steed stoat stork swan tern toad trout turtle vole wasp whale wolf worm wren yak zebra
"""
_ADJECTIVES, _NOUNS = (words.split() for words in _WORDS.split(";"))


def random_name() -> str:
    """Something a person can say, such as `silent-stag-148`."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(1000)}"
