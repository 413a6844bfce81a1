"""The conversation between a shell and ``keepsake`` while somebody presses the tab key.

The shell's script sets ``_KEEPSAKE_COMPLETE`` to its name. zsh and fish give the words as arguments, the last of them as far as it goes;
bash takes words apart at ``@``, ``:`` and ``=``, so it gives the line as it is, and gets what is to stand in place of the last part. The
answer is one line that says what it is (``words``, ``directories`` or ``files``), and one line a word, a tab and its meaning.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

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
    done < <(_KEEPSAKE_COMPLETE=bash COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    case $kind in
        directories) compopt -o dirnames 2>/dev/null ;;
        files) compopt -o default 2>/dev/null ;;
    esac
}
complete -F _keepsake keepsake
"""

ZSH = """\
#compdef keepsake
_keepsake() {
    local line kind
    local -a found meanings
    for line in "${(@f)$(_KEEPSAKE_COMPLETE=zsh "${words[1]}" "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ -z $kind ]]; then kind=$line; continue; fi
        found+=("${line%%$'\\t'*}")
        meanings+=("${line/$'\\t'/  }")
    done
    case $kind in
        directories) _files -/ ;;
        files) _files ;;
        *) compadd -l -d meanings -a found ;;
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
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (env _KEEPSAKE_COMPLETE=fish $words 2>/dev/null)
    switch "$lines[1]"
        case directories
            __fish_complete_directories (commandline -ct)
        case files
            __fish_complete_path (commandline -ct)
        case '*'
            printf '%s\\n' $lines[2..-1]
    end
end
complete -c keepsake -f -a '(__keepsake_complete)'
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
        kind, found = candidates(arguments)
        return [kind, *(f"{one.word}\t{safe(one.meaning)[:MAX_MEANING]}" if one.meaning else one.word for one in found)]
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = _split(line)
    kind, found = candidates(words[1:])
    kept = _kept_by_bash(line, words[-1], os.environ.get("COMP_WORDBREAKS", ""))
    return [kind, *(one.word[kept:] for one in found)]


def _split(line: str) -> list[str]:
    """Return the words of a line, of which the last one may be empty, or in a quotation that has not ended."""
    for ending in ("", '"', "'"):
        try:
            words = shlex.split(line + ending)
        except ValueError:
            continue
        is_new = not ending and line[-1:].isspace() and not line.endswith("\\ ")
        return [*words, ""] if is_new else words
    return line.split()


def _kept_by_bash(line: str, word: str, breaks: str) -> int:
    """Return how much of the word being typed bash takes for words of their own, and leaves as it is."""
    if not line.endswith(word):
        # It is quoted in some way that bash takes as a whole.
        return 0
    if line[: len(line) - len(word)][-1:] in ("'", '"'):
        return 0
    places = ((word.rfind(char), char) for char in breaks if char in word)
    return max((place + (char not in _BEGIN_WORDS) for place, char in places), default=0)
