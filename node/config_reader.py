"""Reading the configuration: flags over environment over files over defaults.

Knows the layers, which one each value came from, and how to name a mistake; must not know what
the settings mean beyond their form.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from node.card_file import CARD_FILE
from node.config import (
    SECTIONS,
    SHIPPED_MODELS,
    ApiConfig,
    EngineConfig,
    Kind,
    LogConfig,
    MemoryConfig,
    ModelConfig,
    NetworkConfig,
    NodeConfig,
    NodeSection,
    RouterConfig,
    SwarmConfig,
    derived_model_id,
    environment,
)
from node.config_checks import complaints
from node.paths import SYSTEM_CONFIG_FILE, Paths, paths_below, user_paths
from node.quantities import parse_duration, parse_size
from node.shipped import shipped_tables
from protocols.errors import ConfigError, ProtocolError
from protocols.ids import parse_specialist_id

T = TypeVar("T")

NO_MODELS = "none"
_ENVIRONMENT_PREFIX = "DSLM_"
_OTHER_VARIABLES = (
    "DSLM_API_KEY",
    "DSLM_CONFIG",
    "DSLM_HOME",
    "DSLM_MODELS",
    "DSLM_MODELS_DIR",
    "DSLM_URL",
)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says. `settings` pairs `section.key` with text."""

    home: Path | None = None
    config_file: Path | None = None
    settings: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting: its value as text, where the value came from, its variable, what it is for."""

    key: str
    value: str
    origin: str
    variable: str
    about: str


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The configuration together with its explanation, one row for each setting."""

    config: NodeConfig
    explained: tuple[Explained, ...]
    url: str
    """Where clients look for the node when `--url` is not given."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A raw value; `textual` ones come from the environment or a flag and have no type yet."""

    value: object
    origin: str
    textual: bool = False
    folder: Path | None = None


_MODELS = "models"


def load(
    overrides: Overrides,
    variables: Mapping[str, str],
    system_file: Path = SYSTEM_CONFIG_FILE,
) -> LoadedConfig:
    """Flags over environment over the user's file over the system's file over defaults.

    Raises `ConfigError` for an unreadable file, an unknown key or a value of the wrong kind.
    """
    paths = _paths(overrides, variables)
    given: dict[str, _Given] = {}
    for file in (system_file, paths.config_file):
        given |= _from_file(file)
    given |= _from_environment(variables)
    given |= _from_overrides(overrides)
    config = _build(given, paths)
    _check(config, given)
    rows = tuple(_explain(config, given))
    return LoadedConfig(config, rows, variables.get("DSLM_URL", "").rstrip("/"))


def load_process_config(overrides: Overrides) -> LoadedConfig:
    """`load` with the environment of this process."""
    return load(overrides, environment())


def variable_of(key: str) -> str:
    """The environment variable of `section.key`."""
    return _ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


def _paths(overrides: Overrides, variables: Mapping[str, str]) -> Paths:
    home = overrides.home or (Path(variables["DSLM_HOME"]) if variables.get("DSLM_HOME") else None)
    paths = user_paths() if home is None else paths_below(home)
    file = overrides.config_file
    if file is None and variables.get("DSLM_CONFIG"):
        file = Path(variables["DSLM_CONFIG"])
    if file is not None:
        file = file.expanduser().absolute()
        if not file.is_file():
            raise ConfigError(f"the configuration file {file} does not exist")
        paths = replace(paths, config_file=file)
    if variables.get("DSLM_MODELS_DIR"):
        models = Path(variables["DSLM_MODELS_DIR"]).expanduser().absolute()
        paths = replace(paths, models=models)
    return paths


def _from_file(file: Path) -> dict[str, _Given]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep brackets
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    given: dict[str, _Given] = {}
    for section, content in document.items():
        if section == _MODELS:
            given[_MODELS] = _Given(content, str(file), folder=file.parent)
            continue
        if section not in SECTIONS:
            raise _unknown(section, [*SECTIONS, _MODELS], str(file), "section")
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: {section} must be a table, written [{section}]")
        for name, value in content.items():
            given[_known(f"{section}.{name}", str(file))] = _Given(value, str(file))
    return given


def _from_environment(variables: Mapping[str, str]) -> dict[str, _Given]:
    by_variable = {variable_of(key): key for key in _keys()}
    given: dict[str, _Given] = {}
    sections = tuple(f"{_ENVIRONMENT_PREFIX}{name.upper()}_" for name in SECTIONS)
    for name, value in variables.items():
        if name in by_variable:
            given[by_variable[name]] = _Given(value, f"environment {name}", textual=True)
        elif name == "DSLM_MODELS":
            sources = [text.strip() for text in value.split(",") if text.strip()]
            given[_MODELS] = _Given(_listed(sources), f"environment {name}")
        elif name not in _OTHER_VARIABLES and name.startswith(_ENVIRONMENT_PREFIX):
            candidates = [*by_variable, *_OTHER_VARIABLES]
            if name.startswith(sections) or difflib.get_close_matches(name, candidates, 1, 0.85):
                raise _unknown(name, candidates, "environment", "variable")
    return given


def _from_overrides(overrides: Overrides) -> dict[str, _Given]:
    given = {
        _known(key, "command line"): _Given(value, "command line", textual=True)
        for key, value in overrides.settings
    }
    if overrides.models:
        given[_MODELS] = _Given(_listed(overrides.models), "command line")
    return given


def _listed(sources: Iterable[str]) -> object:
    """Models named in one line each, `SOURCE` or `ID=SOURCE`, as `[[models]]` would say it.

    `SHIPPED_MODELS` stands for several.
    """
    chosen = [source for source in sources if source != NO_MODELS]
    tables: list[dict[str, object]] = []
    for source in chosen:
        if source == SHIPPED_MODELS:
            tables += shipped_tables()
            continue
        name, equals, path = source.partition("=")
        has_id = bool(equals) and not path.startswith("=") and not name.startswith(("/", ".", "~"))
        tables.append({"id": name, "path": path} if has_id else {"path": source})
    return tables if tables else NO_MODELS


def _build(given: Mapping[str, _Given], paths: Paths) -> NodeConfig:
    config = NodeConfig(
        paths,
        api=_section("api", ApiConfig, given),
        node=_section("node", NodeSection, given),
        network=_section("network", NetworkConfig, given),
        swarm=_section("swarm", SwarmConfig, given),
        engine=_section("engine", EngineConfig, given),
        memory=_section("memory", MemoryConfig, given),
        router=_section("router", RouterConfig, given),
        log=_section("log", LogConfig, given),
        models=_models(given.get(_MODELS)),
    )
    if config.node.data:
        data = _expanded(config.node.data).absolute()
        config = replace(config, paths=replace(paths, data=data))
    return config


def _section(section: str, kind: type[T], given: Mapping[str, _Given]) -> T:
    types = get_type_hints(kind)
    values: dict[str, object] = {}
    for one in fields(kind):  # type: ignore[arg-type]
        key = f"{section}.{one.name}"
        if key in given:
            values[one.name] = _converted(key, given[key], types[one.name], one.metadata["kind"])
    return kind(**values)


def _converted(key: str, given: _Given, wanted: type, kind: Kind) -> object:
    value = given.value
    try:
        if kind == "duration":
            return parse_duration(value)
        if kind == "size":
            return parse_size(value)
        if given.textual and isinstance(value, str) and getattr(wanted, "__origin__", 0) is tuple:
            value = [part.strip() for part in value.split(",") if part.strip()]
        converted: object = msgspec.convert(value, wanted, strict=not given.textual)
    except msgspec.ValidationError as error:
        choices = ", ".join(map(str, get_args(wanted))) if get_origin(wanted) is Literal else ""
        what = f"it can be {choices}" if choices else str(error)
        raise ConfigError(f"{key} = {given.value!r} (from {given.origin}): {what}") from error
    except ConfigError as error:
        raise ConfigError(f"{key} = {given.value!r} (from {given.origin}): {error}") from error
    return converted


def _models(given: _Given | None) -> tuple[ModelConfig, ...]:
    if given is None:
        given = _Given(_listed([SHIPPED_MODELS]), "default")
    if given.value in (NO_MODELS, []):
        return ()
    if not isinstance(given.value, list):
        raise ConfigError(
            f'models = {given.value!r} (from {given.origin}): use [[models]] tables or "none"'
        )
    models = tuple(_model(table, given) for table in given.value)
    names = [model.id for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models have the id {name!r} (from {given.origin})")
    return models


def _model(table: object, given: _Given) -> ModelConfig:
    where = f"[[models]] in {given.origin}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: each model is a table with at least a path")
    known = [one.name for one in fields(ModelConfig)]
    for name in table:
        if name not in known:
            raise _unknown(name, known, where, "key")
    table = dict(table)
    if isinstance(table.get("examples"), str):
        table["examples"] = _lines(_rooted(table["examples"], given.folder), where)
    try:
        model = msgspec.convert(table, ModelConfig)
        name = parse_specialist_id(model.id or derived_model_id(model.adapter or model.path))
    except (msgspec.ValidationError, ProtocolError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if model.slots < 1 or model.context < 0:
        raise ConfigError(f"{where}: slots must be 1 or more and context 0 or more")
    path, adapter = _rooted(model.path, given.folder), _rooted(model.adapter, given.folder)
    card = _card(_rooted(model.card, given.folder), adapter, f"{where}: {name}")
    if adapter and not (model.domains or card):
        raise ConfigError(
            f"{where}: {name} has an adapter, so it needs domains that it is for, or a card file "
            "that names them (`dslm card new` makes one)"
        )
    return replace(model, id=name, path=path, adapter=adapter, card=card)


def _card(card: str, adapter: str, where: str) -> str:
    """The card file: the one that is named, else the one beside the adapter, if there is one."""
    if card:
        if not Path(card).is_file():
            raise ConfigError(f"{where}: there is no card file {card}; `dslm card new` makes one")
        return card
    beside = Path(adapter) / CARD_FILE
    return str(beside) if adapter and beside.is_file() else ""


def _rooted(path: str, folder: Path | None) -> str:
    """Paths that start with a dot are relative to the file that names them, or to here."""
    if path.startswith((".", "~")):
        return str(((folder or Path.cwd()) / _expanded(path)).resolve())
    return path


def _expanded(path: str) -> Path:
    if "\0" in path:
        raise ConfigError(f"{path!r} is no path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path!r} is no path: {error}") from error


def _lines(path: str, where: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot read the examples in {path}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check(config: NodeConfig, given: Mapping[str, _Given]) -> None:
    for key, value, why in complaints(config):
        origin = given[key].origin if key in given else "default"
        raise ConfigError(f"{key} = {value!r} (from {origin}): {why}")


def _keys() -> list[str]:
    return [f"{name}.{one.name}" for name, kind in SECTIONS.items() for one in fields(kind)]


def _known(key: str, origin: str) -> str:
    if key not in _keys():
        raise _unknown(key, _keys(), origin, "setting")
    return key


def _unknown(name: str, candidates: Iterable[str], origin: str, what: str) -> ConfigError:
    near = difflib.get_close_matches(name, list(candidates), 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else "; `dslm config env` lists all settings"
    return ConfigError(f"unknown {what} {name!r} (from {origin}){hint}")


def _explain(config: NodeConfig, given: Mapping[str, _Given]) -> Iterable[Explained]:
    for section, kind in SECTIONS.items():
        values = getattr(config, section)
        for one in fields(kind):
            key = f"{section}.{one.name}"
            value = getattr(values, one.name)
            shown = ",".join(value) if isinstance(value, tuple) else str(value)
            origin = given[key].origin if key in given else "default"
            yield Explained(key, shown, origin, variable_of(key), str(one.metadata["about"]))
    models = ",".join(f"{model.id}={model.path}" for model in config.models) or NO_MODELS
    origin = given[_MODELS].origin if _MODELS in given else "default"
    yield Explained(_MODELS, models, origin, "DSLM_MODELS", "what to host: sources, or none")
