mod callees;

mod steps;

mod undoing;

mod whole;
