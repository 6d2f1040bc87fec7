import json

import pytest

from cbsn.errors import ConfigError
from cbsn.training.distribution import Cluster


def _environment(cluster, task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": " "}])
def test_without_the_variable_a_process_is_alone(environment):
    assert Cluster.read(environment) is None


@pytest.mark.parametrize(
    ("cluster", "task", "index"),
    [
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 0}, 0),
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": "1"}, 1),
        ({"chief": ["a:1"], "worker": ["b:2"]}, {"type": "chief", "index": 0}, 0),
        ({"worker": ["b:2"], "chief": ["a:1"]}, {"type": "worker", "index": 0}, 1),
    ],
)
def test_the_chief_comes_first(cluster, task, index):
    assert Cluster.read(_environment(cluster, task)) == Cluster(("a:1", "b:2"), index)


@pytest.mark.parametrize("job", ["chief", "worker"])
def test_one_process_is_alone(job):
    assert Cluster.read(_environment({job: ["a:1"]}, {"type": job, "index": 0})) is None


def test_what_is_written_is_read():
    cluster = Cluster(("a:1", "b:2", "c:3"), 2)
    assert Cluster.read({"TF_CONFIG": cluster.to_json()}) == cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "task"),
        (Cluster(("a:1", "b:2"), 2).to_json(), "there is no worker 2"),
        (Cluster(("a", "b:2"), 0).to_json(), "every address needs a port"),
        (Cluster(("a:1", "a:1"), 0).to_json(), "an address is there twice"),
        (Cluster(("a:1", "b:2"), 0).to_json().replace('"worker": [', '"ps": ['), "nothing else"),
    ],
)
def test_mistakes_show_what_was_received_and_how_it_ought_to_be(text, message):
    with pytest.raises(ConfigError) as error:
        Cluster.read({"TF_CONFIG": text})
    assert message in str(error.value)
    assert f"Received: TF_CONFIG={text!r}" in str(error.value)
    assert '"task": {"type": "worker", "index": 0}' in str(error.value)
