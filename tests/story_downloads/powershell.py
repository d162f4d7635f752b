"""Parses PowerShell and tells where it cannot: one line per mistake, and the exit code 1."""

import sys

import tree_sitter
import tree_sitter_powershell

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))


def mistakes(node):
    if node.is_error or node.is_missing:
        row, column = node.start_point
        yield f"{row + 1}:{column + 1}: {node.type}"
        return
    for child in node.children:
        yield from mistakes(child)


found = [mistake for path in sys.argv[1:] for mistake in mistakes(parser.parse(open(path, "rb").read()).root_node)]
print("\n".join(found))
sys.exit(1 if found else 0)
