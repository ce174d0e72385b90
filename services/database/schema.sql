-- The shop's tables and first products. Running it again changes nothing.
--
-- Run with psql by the owner of the database; the two roles must exist:
--   psql -v product_role=NAME -v order_role=NAME -f schema.sql DATABASE
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;

CREATE TABLE IF NOT EXISTS products (
    id    integer PRIMARY KEY CHECK (id > 0),
    name  text NOT NULL UNIQUE CHECK (name <> ''),
    price numeric(10,2) NOT NULL CHECK (price >= 0),
    -- With this limit a total has 15 digits at most, which clients' floating point numbers carry exactly.
    stock integer NOT NULL CHECK (stock BETWEEN 0 AND 100000)
);

CREATE TABLE IF NOT EXISTS orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id integer NOT NULL CHECK (customer_id > 0),
    product_id  integer NOT NULL REFERENCES products (id),
    quantity    integer NOT NULL CHECK (quantity > 0),
    unit_price  numeric(10,2) NOT NULL CHECK (unit_price >= 0),
    total_price numeric(15,2) NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_total_check CHECK (total_price = unit_price * quantity)
);

INSERT INTO products (id, name, price, stock) VALUES
    (1, 'Laptop', 999.99, 50),
    (2, 'Mouse', 29.99, 200),
    (3, 'Keyboard', 79.99, 150)
ON CONFLICT DO NOTHING;

-- Each service may do what it does and no more: nobody changes a price, an order is never changed or deleted.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
-- Rights that an earlier version gave go, too.
REVOKE ALL ON products, orders FROM :"product_role", :"order_role";
GRANT SELECT ON products TO :"product_role";
GRANT SELECT, UPDATE (stock) ON products TO :"order_role";
GRANT SELECT, INSERT ON orders TO :"order_role";

COMMIT;
