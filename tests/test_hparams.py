"""Hyper-parameters: every mistake is one line that names file, key, expected and received."""

import dataclasses
import json

import pytest

from tfvid.hparams import HParams, HParamsError, hp, read_json_object, split_overrides, type_name


@dataclasses.dataclass(frozen=True)
class Example(HParams):
    lr: float = hp(0.001, "learning rate", low=0)
    layers: tuple[int, ...] = hp((1, 2), "sizes", low=1)
    betas: tuple[float, float] = hp((0.5, 0.9), "moments", low=0, high=1)
    kind: str = hp("cdna", "transformation", choices=("cdna", "dna"))
    name: str = hp("x", "free text")
    names: tuple[str, ...] = hp((), "words")
    limit: int | None = hp(None, "limit")
    on: bool = hp(False, "switch")

    IGNORED_KEYS = {"repeat": None, "vgg_weight": (0,)}


def write(tmp_path, text):
    path = tmp_path / "h.json"
    path.write_text(text)
    return str(path)


def error(tmp_path, text, overrides=""):
    with pytest.raises(HParamsError) as e:
        Example.load(write(tmp_path, text), overrides)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_precedence_file_over_defaults_override_over_file_extra_over_all(tmp_path):
    path = write(tmp_path, '{"lr": 1, "kind": "dna", "batch_size": 4}')
    got = Example.load(path, "kind=cdna,batch_size=8", {"batch_size": 2})
    assert (got.lr, got.kind, got.batch_size, got.layers) == (1.0, "cdna", 2, (1, 2))
    assert isinstance(got.lr, float)


def test_json_round_trip_keeps_every_field(tmp_path):
    before = Example(lr=0.5, layers=(3,), limit=7, names=("a", "b"))
    before.save(str(tmp_path / "saved.json"))
    assert Example.load(str(tmp_path / "saved.json")) == before
    assert json.loads((tmp_path / "saved.json").read_text())["layers"] == [3]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"lrr": 1}', ["h.json", "unknown", "'lrr'", "did you mean 'lr'"]),
        ('{"zzzzzz": 1}', ["unknown", "known:", "lr", "kind"]),
        ('{"lr": "1"}', ["h.json", "lr", "expected number", "'1'", "string"]),
        ('{"lr": true}', ["lr", "expected number", "true or false"]),
        ('{"on": 1}', ["on", "expected true or false", "1", "integer"]),
        ('{"batch_size": 1.5}', ["batch_size", "expected integer", "1.5"]),
        ('{"batch_size": 0}', ["batch_size", ">= 1", "0"]),
        ('{"batch_size": 9223372036854775808}', ["batch_size", "expected integer", "more than 64 bits"]),
        ('{"betas": [0.1]}', ["betas", "[number, number]"]),
        ('{"betas": [0.1, 2]}', ["betas", ">= 0 and <= 1", "2"]),
        ('{"layers": [0]}', ["layers", ">= 1"]),
        ('{"layers": 3}', ["layers", "list of integer", "3"]),
        ('{"kind": "cdn"}', ["kind", "cdna, dna", "did you mean 'cdna'"]),
        ('{"limit": "a"}', ["limit", "integer or null"]),
        ('{"lr": null}', ["lr", "number", "null"]),
        ('{"lr": {}}', ["lr", "number", "object"]),
        ('{"lr": -1}', ["lr", ">= 0"]),
        ('{"lr": NaN}', ["finite", "NaN"]),
        ('{"lr": 1e999}', ["lr", "number"]),
        ('{"lr": 1, "lr": 2}', ["once", "'lr'", "twice"]),
        ('{"lr": 1,}', ["JSON", "line 1"]),
        ("", ["JSON"]),
        ("[1]", ["one flat JSON object", "list"]),
        ("[" * 100000, ["h.json", "JSON"]),
        ('{"vgg_weight": 0.5}', ["vgg_weight", "not supported", "0.5"]),
        ('{"context_frames": 5, "sequence_length": 5}', ["h.json", "context_frames", "less than sequence_length=5"]),
        ('{"lr": 1' + "0" * 5000 + "}", ["h.json"]),
        ('{"lr": 1' + "0" * 400 + "}", ["lr", "number"]),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, parts):
    message = error(tmp_path, text)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("lr", ["--hparams_override", "name=value", "'lr'"]),
        ("=1", ["name=value"]),
        ("lr=1,lr=2", ["once", "'lr'"]),
        ("lrr=1", ["--hparams_override", "did you mean 'lr'"]),
        ("lr=abc", ["--hparams_override", "lr", "number", "'abc'"]),
        ("layers=[1,a]", ["layers", "list of integer"]),
        ("layers=[1,2", ["layers"]),
        ("kind=none", ["kind", "cdna, dna"]),
        ("lr=NaN", ["lr", "number"]),
        ("context_frames=9,sequence_length=3", ["context_frames", "less than"]),
    ],
)
def test_mistakes_in_overrides(tmp_path, overrides, parts):
    message = error(tmp_path, "{}", overrides)
    for part in parts:
        assert part in message


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "h.json").write_bytes(b'\xef\xbb\xbf{"lr": 0.5}')
    assert Example.load(str(tmp_path / "h.json")).lr == 0.5


def test_overrides_understand_every_type(tmp_path):
    got = Example.load(None, "lr=1e-4,layers=[4,5],betas=[0,1],kind=dna,name=none,on=True,limit=none,names=[a,b]")
    assert (got.lr, got.layers, got.betas, got.kind) == (1e-4, (4, 5), (0.0, 1.0), "dna")
    assert (got.name, got.on, got.limit, got.names) == ("none", True, None, ("a", "b"))
    assert Example.load(None, "limit=3,name=7,names=[]").limit == 3
    assert Example.load(None, "name=7").name == "7"
    assert Example.load(None, "names=[1,true]").names == ("1", "true")


def test_split_overrides_leaves_commas_in_brackets():
    assert split_overrides("a=1,b=[2,3], c=x=y") == {"a": "1", "b": "[2,3]", "c": "x=y"}


def test_ignored_keys_are_warned_of_in_one_line(tmp_path, caplog):
    Example.load(write(tmp_path, '{"repeat": 3, "vgg_weight": 0, "lr": 1}'))
    Example.load(write(tmp_path, '{"repeat": 3}'), "lr=2")
    assert [r.getMessage().split(": ")[1:] for r in caplog.records] == [
        ["ignored, without effect", "repeat, vgg_weight"],
        ["ignored, without effect", "repeat"],
    ]


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(HParamsError, match="nothing.json: expected a JSON file, found none"):
        read_json_object(str(tmp_path / "nothing.json"))
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HParamsError, match="b.json: expected a JSON text file"):
        read_json_object(str(tmp_path / "b.json"))
    with pytest.raises(HParamsError, match="expected a JSON"):
        read_json_object(str(tmp_path))


def test_dataset_defaults_fill_what_is_none_only():
    got = Example(context_frames=3).with_dataset_defaults({"context_frames": 2, "sequence_length": 12})
    assert (got.context_frames, got.sequence_length) == (3, 12)
    with pytest.raises(HParamsError, match="fps"):
        Example().with_dataset_defaults({"fps": 3})
    with pytest.raises(HParamsError, match="context_frames"):
        Example(context_frames=12).with_dataset_defaults({"sequence_length": 12})


def test_values_given_in_python_are_checked_too():
    with pytest.raises(HParamsError, match="lr"):
        Example(lr="fast")
    with pytest.raises(HParamsError, match="kind"):
        Example().replace(kind="x")
    assert Example(layers=[1, 2]).layers == (1, 2)
    assert hash(Example()) == hash(Example())


def test_description_names_every_field():
    text = Example.describe()
    assert all(f.name in text for f in dataclasses.fields(Example))
    assert "one of cdna, dna" in text
    assert type_name(tuple[int, ...]) == "list of integer"
