"""Making a swarm: the owner's key, the charter, and this node as the first member and issuer.

Knows the order in which the files are made, so that a failure leaves none of them; must not know
how a person is asked for a passphrase.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.paths import Paths
from node.swarms.folder import SwarmFolder, swarm_names
from node.swarms.owner_key import Entropy, OwnerKeyFile
from protocols import limits
from protocols.errors import ConfigError, ProtocolError, UserError
from protocols.ids import PeerId
from protocols.membership.book import credential_of
from protocols.membership.charter import Charter
from protocols.membership.documents import Certificate, Delegation, Role, seal_document
from protocols.signing import Identity

NAME_MAX = 64
FIRST_ROLES = (Role.NODE, Role.USER, Role.TRAINER, Role.ISSUER)


@dataclass(frozen=True, slots=True)
class Founder:
    """What making a swarm needs of the outside. `make_key` makes new identities."""

    paths: Paths
    now: float
    entropy: Entropy
    make_key: Callable[[], Identity] = Identity.generate


@dataclass(frozen=True, slots=True)
class Founded:
    """A new swarm."""

    charter: Charter
    peer: PeerId
    """Who this node is there."""
    owner_key: Path
    folder: Path


def check_new(name: str, paths: Paths) -> None:
    """`UserError` if a swarm of that name cannot be made here."""
    try:
        Charter(name).check()
    except ProtocolError as error:
        raise UserError(str(error).replace("specialist id", "name of a swarm")) from error
    if len(name) > NAME_MAX:
        raise UserError(f"the name of a swarm has at most {NAME_MAX} characters")
    if name in swarm_names(paths.swarms):
        raise UserError(f"this node is in a swarm named {name} already: `dslm swarm ls`")
    key = owner_key_file(paths, name).path
    if key.exists():
        raise ConfigError(
            f"{key} is the owner's key of an older swarm named {name}: move it to a safe place, or "
            "choose another name"
        )


def found(name: str, *, is_private: bool, passphrase: str, founder: Founder) -> Founded:
    """Make the swarm `name`. A `UserError` if that cannot be; then nothing was made."""
    paths = founder.paths
    check_new(name, paths)
    owner, me = founder.make_key(), founder.make_key()
    charter = Charter(name, owner.peer_id, is_private).check()
    key_file = owner_key_file(paths, name)
    key_file.create(charter, owner, passphrase, founder.entropy)
    try:
        folder = SwarmFolder.create(paths.swarms, charter, me)
        if is_private:
            _make_first_papers(folder, owner, founder)
    except BaseException:
        key_file.path.unlink(missing_ok=True)
        raise
    return Founded(charter, me.peer_id, key_file.path, folder.path)


def owner_key_file(paths: Paths, name: str) -> OwnerKeyFile:
    """Where the owner's key of a swarm is unless it was moved."""
    return OwnerKeyFile(paths.owners / f"{name}.key")


def _make_first_papers(folder: SwarmFolder, owner: Identity, founder: Founder) -> None:
    """The first issuer issues its own certificate, from now on for as long as it is delegated."""
    me, swarm, now = folder.identity, folder.charter.swarm, founder.now
    delegation = seal_document(
        Delegation(swarm, me.peer_id, now, now + limits.DELEGATION_SECONDS_MAX), owner
    )
    serial = int.from_bytes(founder.entropy(8), "big") >> 1
    until = now + limits.CERTIFICATE_SECONDS_MAX
    certificate = seal_document(Certificate(swarm, me.peer_id, FIRST_ROLES, serial, now, until), me)
    try:
        folder.save_delegations((delegation,))
        folder.save_credential(credential_of(certificate, delegation))
    except BaseException:
        folder.remove()
        raise
