cd /tmp/h-pass
EMBERFS_TEST_RULES=/tmp/h-pass/rules.yaml ./emberfs mount m --state /tmp/h-pass/s --log-file /tmp/h-pass/log -o allow_other && ./emberfs status m --json | python3 -c "import json,sys; d=json.load(sys.stdin); print(d['passthrough'], d['notes'], d['rules'], d['pid'])"; tail -5 log
mkdir -p m/build
python3 t.py m/build; python3 t.py m; ./emberfs status m --json | python3 -c "import json,sys; d=json.load(sys.stdin); print(d['passthrough'])"; python3 t.py nat
