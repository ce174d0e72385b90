"""YAML nodes by PyYAML's parser in C; imported only where there is one."""

from __future__ import annotations

from yaml import Node
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.resolver import Resolver


class _Loader(Composer, Resolver, CParser):
    """Events from C, and nodes of them as PyYAML's own loaders make them."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        Resolver.__init__(self)


def compose(text: str) -> Node | None:
    """Return the nodes of a document as yaml.compose does, and raise as it does."""
    return _Loader(text).get_single_node()
