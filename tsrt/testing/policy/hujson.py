"""
Reads JSON as people write it: with comments and trailing commas.

The parser remembers the line of every value, so that an error found later, when
the meaning of the document is checked, can still name the line.
"""

from __future__ import annotations

import json
import re

from attrs import field, frozen

from tsrt.testing.policy.errors import Path, PolicyError

MAX_DEPTH = 64
"""How deep objects and lists may be nested."""

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


@frozen
class Document:
    """
    A parsed document: plain values, and the line where each one stands.

    @ivar value: dictionaries, lists, strings, numbers, booleans and C{None}.
    @ivar lines: the line (from 1) of each value, by path.
    """

    value: object
    lines: dict[Path, int] = field(factory=dict, repr=False)

    def error(self, path: Path, message: str) -> PolicyError:
        """
        Make an error about the value at a path, ready to raise.

        @param path: the place in the document.
        @param message: what is wrong with it.
        """
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return PolicyError(message, line=self.lines.get(known, 0), path=path)


def parseHuJSON(text: str) -> Document:
    """
    Parse JSON with C{//} and C{/* */} comments and trailing commas.

    @param text: the document.
    @raise PolicyError: when it is malformed, a key is given twice in one
        object, or the nesting is deeper than L{MAX_DEPTH}.
    """
    return _Parser(text.removeprefix("\ufeff")).document()


class _Parser:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lineAt = 0
        self._lines: dict[Path, int] = {}

    def document(self) -> Document:
        """The whole text as one value."""
        value = self._value(())
        self._skipSpace()
        if self._at != len(self._text):
            raise self._error("something follows the end of the document")
        return Document(value, self._lines)

    def _error(self, message: str, path: Path = ()) -> PolicyError:
        return PolicyError(message, line=self._lineHere(), path=path)

    def _lineHere(self) -> int:
        """The line of the present position; positions only grow."""
        self._line += self._text.count("\n", self._lineAt, self._at)
        self._lineAt = self._at
        return self._line

    def _skipSpace(self) -> None:
        match = _SPACE.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _peek(self) -> str:
        self._skipSpace()
        return self._text[self._at : self._at + 1]

    def _value(self, path: Path) -> object:
        start = self._peek()
        self._lines[path] = self._lineHere()
        if len(path) > MAX_DEPTH:
            raise self._error("nested too deeply", path)
        if start == "{":
            return self._object(path)
        if start == "[":
            return self._list(path)
        if start == '"':
            return self._string()
        number = _NUMBER.match(self._text, self._at)
        if number is not None:
            self._at = number.end()
            if len(number.group()) > 64:
                raise self._error("a number is too long", path)
            parsed: object = json.loads(number.group())
            return parsed
        for word, meaning in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return meaning
        if not start:
            raise self._error("the document ends in the middle", path)
        if self._text.startswith("/*", self._at):
            raise self._error("a comment is not closed", path)
        raise self._error(f"a value was expected, not {start!r}", path)

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise self._error("a string is not closed or holds a control character")
        try:
            text = json.loads(match.group())
            # Half a surrogate pair parses as JSON but is no text.
            text.encode("utf-8")
        except (ValueError, UnicodeEncodeError):
            raise self._error("a string holds a malformed escape") from None
        self._at = match.end()
        return str(text)

    def _object(self, path: Path) -> dict[str, object]:
        self._at += 1
        result: dict[str, object] = {}
        while True:
            start = self._peek()
            if start == "}":
                self._at += 1
                return result
            if start != '"':
                raise self._error("a key in double quotes was expected", path)
            key = self._string()
            if key in result:
                raise self._error(f"the key {key!r} is given twice", path)
            if self._peek() != ":":
                raise self._error(f"':' was expected after the key {key!r}", path)
            self._at += 1
            result[key] = self._value((*path, key))
            self._separator("}", path)

    def _list(self, path: Path) -> list[object]:
        self._at += 1
        result: list[object] = []
        while True:
            if self._peek() == "]":
                self._at += 1
                return result
            result.append(self._value((*path, len(result))))
            self._separator("]", path)

    def _separator(self, closing: str, path: Path) -> None:
        """Pass the comma behind an element; the closing bracket stays."""
        following = self._peek()
        if following == ",":
            self._at += 1
        elif following != closing:
            raise self._error(f"',' or '{closing}' was expected", path)
