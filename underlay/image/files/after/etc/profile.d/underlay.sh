# /etc/profile sets PATH anew in every login shell; the Python environment of the lab comes first again.
PATH="/opt/underlay/bin:$PATH"
export PATH
