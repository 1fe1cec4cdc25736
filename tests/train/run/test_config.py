import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.names import SeriesType
from lumbar.train.run.config import RunConfig, resolve_config

T2 = SeriesType.SAGITTAL_T2


@pytest.fixture
def write_toml(tmp_path):
    def write(text):
        path = tmp_path / "run.toml"
        path.write_text(text)
        return path

    return write


def refusal(*overrides, file=None, series=T2):
    """Return the one line with which a configuration is refused."""
    with pytest.raises(InputError) as caught:
        resolve_config(series, file=file, overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_are_those_of_the_classes():
    assert resolve_config(T2) == RunConfig(series=T2)


def test_an_axial_series_starts_from_more_slices_and_smaller_pixels():
    crop = resolve_config(SeriesType.AXIAL_T2).crop
    assert (crop.slices, crop.pixel_mm) == (32, 0.6)
    assert crop.height == resolve_config(T2).crop.height


def test_the_file_beats_defaults_and_set_beats_the_file(write_toml):
    file = write_toml("seed = 4\n[optim]\nlr = 1e-3\nbatch = 2\n[crop]\nslices = 20\n")
    config = resolve_config(
        SeriesType.AXIAL_T2, file=file, overrides=["optim.lr=3e-4", "optim.lr=2e-4", "seed=9"]
    )
    assert (config.seed, config.optim.lr, config.optim.batch) == (9, 2e-4, 2)
    assert (config.crop.slices, config.crop.pixel_mm) == (20, 0.6)
    assert config.optim.epochs == RunConfig(series=T2).optim.epochs


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("model.backbone=resnet50", "model", "backbone", "resnet50"),
        ('model.backbone="resnet50"', "model", "backbone", "resnet50"),
        ("model.pretrained=true", "model", "pretrained", True),
        ("model.stride = 32", "model", "stride", 32),
        ("loss.weights=[1, 2, 5]", "loss", "weights", (1.0, 2.0, 5.0)),
        ("loss.kind=bce", "loss", "kind", "bce"),
        ("optim.lr=1", "optim", "lr", 1.0),
        ('model={norm = "layer"}', "model", "norm", "layer"),
    ],
)
def test_set_takes_toml_values_and_plain_text(override, section, key, value):
    assert getattr(getattr(resolve_config(T2, overrides=[override]), section), key) == value


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "optim.learning_rate=1",
            ["unknown key", "optim.learning_rate", "epochs, batch, accumulate"],
        ),
        ("optimizer.lr=1", ["unknown key", "optimizer", "series, study_types"]),
        ("optim.lr=fast", ["optim.lr", "'fast'", "number"]),
        ("optim.lr=-1", ["optim.lr", "-1", "greater than 0"]),
        ("optim.lr.peak=1", ["optim.lr", "number"]),
        ("model=3", ["model", "3"]),
        ("model.stride=12", ["model.stride", "12", "8, 16 or 32"]),
        ("loss.weights=[1, 2]", ["loss.weights"]),
        ("crop.slices=0", ["crop.slices", "greater than or equal to 1"]),
        ("crop.slices=2.5", ["crop.slices", "2.5"]),
        ("crop.slices=1025", ["crop.slices", "1025", "less than or equal to 1024"]),
        ("crop.pixel_mm=inf", ["crop.pixel_mm", "inf", "finite"]),
        ("crop.pixel_mm_of={axial_t2 = nan}", ["crop.pixel_mm_of.axial_t2", "nan", "finite"]),
        ("optim.lr=inf", ["optim.lr", "inf", "finite"]),
        ("optim.weight_decay=nan", ["optim.weight_decay", "nan", "finite"]),
        ("augment.noise=nan", ["augment.noise", "nan", "finite"]),
        ("sampling.weights=[1, inf, 4]", ["sampling.weights.1", "inf", "finite"]),
        ("loss.weights=[1, 2, inf]", ["loss.weights.2", "inf", "finite"]),
        ("loss.weights=[1, -2, 4]", ["loss.weights.1", "-2", "greater than or equal to 0"]),
        ("model.dropout=nan", ["model.dropout", "nan", "finite"]),
        ("augment.side_exchange=2", ["augment.side_exchange", "less than or equal to 1"]),
        ("seed=-1", ["seed", "-1", "greater than or equal to 0"]),
        ("split.seed=-1", ["split.seed", "-1"]),
        ("optim.lr", ["--set", "'optim.lr'", "KEY=VALUE"]),
        ("=3", ["--set", "'=3'", "KEY=VALUE"]),
        ("series=axial_t2", ["another series type", "axial_t2", "sagittal_t2"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_what_it_is_and_what_it_should_be(override, parts):
    message = refusal(override)
    for part in parts:
        assert part in message


def test_a_wrong_file_is_refused_with_its_name(write_toml, tmp_path):
    assert "run.toml" in refusal(file=write_toml("[optim]\nlr = 0\n"))
    assert "expected TOML" in refusal(file=write_toml("optim: {lr: 3}"))
    assert "another series type" in refusal(file=write_toml('series = "sagittal_t1"'))
    assert "Is a directory" in refusal(file=tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "binary.toml" in refusal(file=binary)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingError, match="no such configuration file"):
        resolve_config(T2, file=tmp_path / "absent.toml")


def test_a_series_type_that_is_not_annotated_cannot_be_trained():
    message = refusal(series=SeriesType.OTHER)
    assert "--series: other" in message or "got other" in message
    assert "sagittal_t1, sagittal_t2, axial_t2" in message


@pytest.mark.parametrize("series", [SeriesType.SAGITTAL_T1, T2, SeriesType.AXIAL_T2])
def test_the_saved_file_gives_the_same_configuration(series, write_toml):
    overrides = ["optim.lr=1.7e-4", "seed=3", "loss.weights=[1,3,5]", "model.norm=layer"]
    config = resolve_config(series, overrides=overrides)
    assert resolve_config(series, file=write_toml(config.to_toml())) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        resolve_config(T2).optim.lr = 1
