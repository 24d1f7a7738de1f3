import json


def test_doctor_names_what_is_there_and_what_is_missing(wingspan):
    findings = {f["name"]: f for f in json.loads(wingspan("doctor", "--json").out)}
    assert findings["torch"]["found"]
    assert findings["gloo"]["found"]
    assert all(f["found"] or f["costs"] for f in findings.values())
    assert "torch" in wingspan("doctor").out
