CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, item TEXT NOT NULL, total_cents INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('paid', 'sent', 'delivered')));
CREATE TABLE refunds (order_id INTEGER PRIMARY KEY REFERENCES orders (id), total_cents INTEGER NOT NULL, run_id TEXT);
INSERT INTO orders (id, customer, item, total_cents, state) VALUES
    (1001, 'ada@example.com', 'Desk lamp', 4900, 'delivered'),
    (1002, 'grace@example.com', 'Headphones', 12900, 'delivered'),
    (1003, 'linus@example.com', 'Keyboard', 8900, 'delivered'),
    (1004, 'margaret@example.com', 'Monitor', 31900, 'sent'),
    (1005, 'alan@example.com', 'Notebook, 5 pieces', 1500, 'delivered'),
    (1006, 'edsger@example.com', 'Fountain pen', 6400, 'delivered'),
    (1007, 'barbara@example.com', 'Backpack', 7900, 'paid'),
    (1008, 'donald@example.com', 'Typewriter', 25000, 'delivered'),
    (1009, 'hedy@example.com', 'Radio', 5900, 'delivered'),
    (1010, 'katherine@example.com', 'Telescope', 49900, 'delivered'),
    (1011, 'kurt@example.com', 'Chess board', 3500, 'delivered'),
    (1012, 'emmy@example.com', 'Compass', 2200, 'delivered'),
    (1013, 'joan@example.com', 'Clock', 2700, 'delivered'),
    (1014, 'claude@example.com', 'Juggling balls', 1900, 'delivered'),
    (1015, 'sophie@example.com', 'Slide rule', 4400, 'sent');
