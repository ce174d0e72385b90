# A base of the shop's images: a tree made of Debian packages (underlay/shop/parts.py says which). The context is the
# directory that holds it, packed.
FROM scratch
ARG TREE
ADD ${TREE} /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["/bin/sh"]
