"""The conversation between a shell and ``keepsake`` while somebody presses the tab key.

The shell's script sets ``_KEEPSAKE_COMPLETE`` to its name. zsh and fish give the words as arguments, the last of them as it was typed and
as far as it goes; bash takes words apart at ``@``, ``:`` and ``=``, so it gives the line as it is, and gets what is to stand in place of
the last part. The answer is one line that says what it is (``words``, ``directories`` or ``files``), and one line a word, a tab and its
meaning.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "_KEEPSAKE_COMPLETE"
"""Set to the name of the shell by the scripts."""

MAX_MEANING = 60

_BEGIN_WORDS = "$@"
"""Of the characters that end a word for bash those that begin the next one (``rl_special_prefixes`` of its line editor)."""

BASH = """\
_keepsake() {
    local line kind=
    COMPREPLY=()
    while IFS= read -r line; do
        if [ -z "$kind" ]; then kind=$line; else COMPREPLY+=("$line"); fi
    done < <(_KEEPSAKE_COMPLETE=bash COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        "${1/#\\~\\//$HOME/}" 2>/dev/null)
    # What ends so is to be gone on with.
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    case $kind in
        directories) compopt -o dirnames 2>/dev/null ;;
        files) compopt -o default 2>/dev/null ;;
    esac
}
# The newest experiment first, which an old bash cannot.
complete -o nosort -F _keepsake keepsake 2>/dev/null || complete -F _keepsake keepsake
"""

ZSH = """\
#compdef keepsake
_keepsake() {
    local line kind
    local -a found meanings begun begun_meanings
    local program=${words[1]/#\\~\\//$HOME/}
    for line in "${(@f)$(_KEEPSAKE_COMPLETE=zsh "$program" "${(@Q)words[2,CURRENT-1]}" "$QIPREFIX$PREFIX" 2>/dev/null)}"; do
        if [[ -z $kind ]]; then kind=$line; continue; fi
        if [[ ${line%%$'\\t'*} == *: ]]; then
            begun+=("${line%%$'\\t'*}")
            begun_meanings+=("${line/$'\\t'/  }")
        else
            found+=("${line%%$'\\t'*}")
            meanings+=("${line/$'\\t'/  }")
        fi
    done
    case $kind in
        directories) _files -/ ;;
        files) _files ;;
        *)
            # In this order, the newest experiment first; what ends with a colon is to be gone on with.
            compadd -V keepsake -l -d meanings -a found
            compadd -V keepsake -l -S '' -d begun_meanings -a begun
            ;;
    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _keepsake "$@"
else
    compdef _keepsake keepsake
fi
"""

FISH = """\
function __keepsake_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l typed (commandline -ct)
    set -l lines (env _KEEPSAKE_COMPLETE=fish $program $words[2..-1] "$typed" 2>/dev/null)
    switch "$lines[1]"
        case directories
            __fish_complete_directories (commandline -ct)
        case files
            __fish_complete_path (commandline -ct)
        case '*'
            printf '%s\\n' $lines[2..-1]
    end
end
complete -c keepsake -f -k -a '(__keepsake_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def answer(shell: str, arguments: Sequence[str]) -> None:
    """Print what may come next; nothing whatever goes wrong, for nobody could read it."""
    try:
        sys.stdout.write("\n".join(_lines(shell, arguments)) + "\n")
        sys.stdout.flush()
    except Exception:  # noqa: BLE001
        return


def _lines(shell: str, arguments: Sequence[str]) -> list[str]:
    from keepsake.cli.candidates import candidates
    from keepsake.display.text import safe

    if shell != "bash":
        *before, typed = arguments or [""]
        kind, found = candidates([*before, _unquoted(typed)])
        return [kind, *(f"{one.word}\t{safe(one.meaning)[:MAX_MEANING]}" if one.meaning else one.word for one in found)]
    line = _Line.parse(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])], os.environ.get("COMP_WORDBREAKS", ""))
    kind, found = candidates(line.words[1:])
    # What was typed stays as it was typed: with the quotes and backslashes that keep it from meaning more.
    return [kind, *(line.replaced + one.word[len(line.words[-1]) :] for one in found)]


class _Line(NamedTuple):
    """A command line as bash takes it apart.

    Args:
        words: Its words without quotes; the last one may be empty, or in a quotation that has not ended.
        replaced: The last part of it as it was typed: what bash replaces by what it is answered.
    """

    words: list[str]
    replaced: str

    @classmethod
    def parse(cls, line: str, breaks: str) -> _Line:
        """Take a line apart.

        Args:
            line: The line, up to the cursor.
            breaks: The characters that end a word for bash's line editor, but not for bash.
        """
        words, start = [""], 0
        for part in _PART.finditer(line):
            if part["space"]:
                words.append("")
                start = part.end()
                continue
            words[-1] += _meant(part)
            if _is_open(part):
                start = part.start() + 1
            elif part["plain"]:
                places = ((part["plain"].rfind(char), char) for char in breaks if char in part["plain"])
                start = max([start, *(part.start() + place + (char not in _BEGIN_WORDS) for place, char in places)])
        return cls(words, line[start:])


_PART = re.compile(
    r"""(?P<space>\s+) | '(?P<single>[^']*) (?P<single_end>'?) | "(?P<double>(?:[^"\\]|\\.)*) \\? (?P<double_end>"?) """
    r"""| \\(?P<escaped>.?) | (?P<plain>[^\s'"\\]+)""",
    re.VERBOSE | re.DOTALL,
)
"""A part of a line: all of any line consists of such parts."""


def _meant(part: re.Match[str]) -> str:
    if part["double"] is not None:
        return re.sub(r'\\([$`"\\])', r"\1", part["double"])
    return next(text for text in (part["single"], part["escaped"], part["plain"], part["space"]) if text is not None)


def _is_open(part: re.Match[str]) -> bool:
    return part["single_end"] == "" or part["double_end"] == ""


def _unquoted(typed: str) -> str:
    """Return what one word means, of which zsh may have taken the quotes around its spaces already."""
    return "".join(map(_meant, _PART.finditer(typed)))
